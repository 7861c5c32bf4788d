//! Where the programs of `benches/bpf` are compiled, when a run begins and never in a build.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::btf::types::{Enum, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize as _};
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

/// A struct of a program, byte for byte, its fields found by name in the object's BTF: nothing
/// of it is written down a second time.
#[derive(Clone)]
pub struct Record {
    offsets: HashMap<String, usize>,
    pub bytes: Vec<u8>,
}

impl Record {
    pub fn of(object: &Path, name: &str) -> Result<Record> {
        let btf = Btf::from_path(object)?;
        let kind = btf.type_by_name::<Struct<'_>>(name).with_context(|| format!("no struct {name}"))?;
        let mut offsets = HashMap::new();
        for member in kind.iter() {
            let (Some(name), MemberAttr::Normal { offset }) = (member.name, member.attr) else { continue };
            offsets.insert(name.to_string_lossy().into_owned(), offset as usize / 8);
        }
        let bytes = vec![0; kind.size()];
        Ok(Record { offsets, bytes })
    }

    pub fn set(&mut self, field: &str, value: &[u8]) {
        let at = self.offsets[field];
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    pub fn read_u64(&self, field: &str) -> u64 {
        let at = self.offsets[field];
        u64::from_ne_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }
}

/// The values of an enum of an object.
pub fn read_enum(object: &Path, name: &str) -> Result<HashMap<String, u32>> {
    let btf = Btf::from_path(object)?;
    let list = btf.type_by_name::<Enum<'_>>(name).with_context(|| format!("no enum {name}"))?;
    let value = |value: libbpf_rs::btf::types::EnumMember<'_>| {
        Some((value.name?.to_string_lossy().into_owned(), u32::try_from(value.value).ok()?))
    };
    Ok(list.iter().filter_map(value).collect())
}
