//! Where the programs of `benches/bpf` are compiled, when a run begins and never in a build.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{Object, ObjectBuilder, ProgramMut};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bpf");

/// A folder for object files, gone with the value.
pub struct Environment {
    folder: PathBuf,
}

impl Environment {
    pub fn open() -> Result<Environment> {
        let folder = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Environment { folder })
    }

    /// Where other files of a run may lie.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Compiles `benches/bpf/NAME.bpf.c`, with the compiler that `build.rs` takes.
    pub fn compile(&self, name: &str) -> Result<PathBuf> {
        let object = self.folder.join(format!("{name}.bpf.o"));
        if object.exists() {
            return Ok(object);
        }
        let source = Path::new(SOURCES).join(format!("{name}.bpf.c"));
        let mut command = Command::new(clang());
        command.args([
            "-g",
            "-O2",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Werror",
            "-I",
        ]);
        command.arg(find_headers()?);
        let machine = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        command.arg("-I").arg(machine).arg("-c").arg(&source).arg("-o").arg(&object);
        let output = command.output().with_context(|| format!("could not run {}", clang().display()))?;
        if !output.status.success() {
            bail!("{} did not compile:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(object)
    }

    /// Compiles and loads; `prepare` sees the object before.
    pub fn load(&self, name: &str, prepare: impl FnOnce(&mut libbpf_rs::OpenObject)) -> Result<Object> {
        let path = self.compile(name)?;
        let mut open = ObjectBuilder::default().open_file(&path)?;
        prepare(&mut open);
        open.load().with_context(|| format!("the kernel refused {name}.bpf.c"))
    }

    /// The programs that the gate is compared with, for a run that looks up no flow of theirs.
    pub fn load_reference(&self) -> Result<Object> {
        self.load("reference", |open| {
            for mut map in open.maps_mut().filter(|map| map.name() == "flows") {
                let _ = map.set_max_entries(1);
            }
        })
    }
}

/// The program of the reference that takes what a router sends on.
pub fn find_sink(reference: &Object) -> Result<ProgramMut<'_>> {
    let sink = reference.progs_mut().find(|program| program.name() == "bare_shot");
    sink.context("no program `bare_shot`")
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The compiler of `build.rs`.
pub fn clang() -> OsString {
    std::env::var_os("CLANG").unwrap_or_else(|| "clang".into())
}

/// libbpf's headers, as its crate has laid them out beside our own build script's output.
fn find_headers() -> Result<PathBuf> {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).context("the folder of builds")?;
    let entries = fs::read_dir(builds).with_context(|| format!("could not read {}", builds.display()))?;
    let mut headers = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libbpf-sys-")))
        .map(|path| path.join("out/include"))
        .filter(|path| path.join("bpf/bpf_helpers.h").exists());
    headers.next().with_context(|| format!("no headers of libbpf below {}", builds.display()))
}
