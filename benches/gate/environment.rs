//! A folder for one run, and the programs of `benches/bpf` in it. They are compiled when a run begins, so the
//! build of the project never sees them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{Object, ObjectBuilder, ProgramMut};
use tempfile::TempDir;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bpf");

/// A temporary folder for objects and policies, deleted on drop.
pub struct Environment {
    folder: TempDir,
}

impl Environment {
    pub fn open() -> Result<Environment> {
        let folder = tempfile::Builder::new().prefix("portcullis-bench-").tempdir()?;
        Ok(Environment { folder })
    }

    /// Its path, for other files of the run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles `benches/bpf/NAME.bpf.c` with the compiler of `build.rs`, once a run.
    pub fn compile(&self, name: &str) -> Result<PathBuf> {
        let object = self.folder.path().join(format!("{name}.bpf.o"));
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

    /// Compiles and loads an object. `prepare` may change it before it is loaded.
    pub fn load(&self, name: &str, prepare: impl FnOnce(&mut libbpf_rs::OpenObject)) -> Result<Object> {
        let path = self.compile(name)?;
        let mut open = ObjectBuilder::default().open_file(&path)?;
        prepare(&mut open);
        open.load().with_context(|| format!("the kernel refused {name}.bpf.c"))
    }

    /// Loads the reference programs for runs that never look up their flows, with a table of one flow.
    pub fn load_reference(&self) -> Result<Object> {
        self.load("reference", |open| {
            for mut map in open.maps_mut().filter(|map| map.name() == "flows") {
                let _ = map.set_max_entries(1);
            }
        })
    }
}

/// The reference program that drops the packets that a router has forwarded.
pub fn find_sink(reference: &Object) -> Result<ProgramMut<'_>> {
    find_program(reference, "bare_shot")
}

/// A program of an object, by its name.
pub fn find_program<'o>(object: &'o Object, name: &str) -> Result<ProgramMut<'o>> {
    let program = object.progs_mut().find(|program| program.name() == name);
    program.with_context(|| format!("no program `{name}`"))
}

/// The compiler of `build.rs`.
pub fn clang() -> OsString {
    std::env::var_os("CLANG").unwrap_or_else(|| "clang".into())
}

/// libbpf's headers, which its crate leaves beside the output of our build script.
fn find_headers() -> Result<PathBuf> {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).context("no folder of builds")?;
    let entries = fs::read_dir(builds).with_context(|| format!("could not read {}", builds.display()))?;
    let mut headers = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libbpf-sys-")))
        .map(|path| path.join("out/include"))
        .filter(|path| path.join("bpf/bpf_helpers.h").exists());
    headers.next().with_context(|| format!("no headers of libbpf below {}", builds.display()))
}
