//! Compiles `bpf/portcullis.bpf.c`, generates Rust types of its BTF, and makes a Rust enum of the
//! numbered list of reasons, so that the list is written once.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;

const SOURCE: &str = "bpf/portcullis.bpf.c";

#[expect(clippy::print_stderr, reason = "cargo shows it")]
fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A panic would bury the compiler's message under a backtrace.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = out.join("portcullis.bpf.o");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    SkeletonBuilder::new()
        .source(SOURCE)
        .obj(&object)
        .clang(&clang)
        .clang_args(find_clang_args()?)
        .build_and_generate(out.join("portcullis.skel.rs"))
        .map_err(|error| {
            format!(
                "{SOURCE} did not compile with {}: {error:#}\n\
                 help: Debian and Ubuntu have what it needs: \
                 apt-get install clang llvm libelf-dev zlib1g-dev pkg-config linux-libc-dev",
                clang.to_string_lossy()
            )
        })?;
    #[expect(
        clippy::disallowed_methods,
        reason = "cargo waits for the script before anybody reads the file"
    )]
    fs::write(out.join("reason.rs"), render_reasons(&object)?)?;
    Ok(())
}

fn find_clang_args() -> Result<Vec<OsString>, env::VarError> {
    // The object has the names of its sources. Without this two checkouts would make two packages.
    let sources = format!("-ffile-prefix-map={}=.", env::var("CARGO_MANIFEST_DIR")?);
    // asm/types.h lies in the folder of Debian's architecture triplet.
    let machine = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "riscv64" => "riscv64-linux-gnu".to_owned(),
        other => format!("{other}-linux-gnu"),
    };
    let mut args: Vec<OsString> =
        ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", &sources].map(OsString::from).to_vec();
    let folder = Path::new("/usr/include").join(machine);
    if folder.is_dir() {
        args.push("-I".into());
        args.push(folder.into());
    }
    Ok(args)
}

/// `enum reason` of the contract as a Rust enum, with the names that users read.
fn render_reasons(object: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let btf = Btf::from_path(object)?;
    let list = btf.type_by_name::<Enum<'_>>("reason").ok_or("the object's BTF has no enum reason")?;
    let mut variants = String::new();
    let mut all = String::new();
    let mut names = String::new();
    for value in list.iter() {
        let name = value
            .name
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("REASON_"))
            .ok_or("a reason's name does not begin with REASON_")?;
        if name == "NONE" || name == "COUNT" {
            continue;
        }
        let variant = to_variant(name);
        let word = name.to_ascii_lowercase();
        writeln!(variants, "    /// `{word}`\n    {variant} = {},", value.value)?;
        writeln!(all, "    Reason::{variant},")?;
        writeln!(names, "            Reason::{variant} => \"{word}\",")?;
    }
    Ok(format!(
        "/// Why a packet passed or was dropped: `enum reason` of `bpf/contract.h`.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n\
         #[repr(u8)]\n\
         pub enum Reason {{\n{variants}}}\n\n\
         /// Every reason, in the order of their numbers.\n\
         pub const REASONS: &[Reason] = &[\n{all}];\n\n\
         impl Reason {{\n    /// The word that users read.\n    \
         pub const fn name(self) -> &'static str {{\n        match self {{\n{names}        }}\n    }}\n}}\n"
    ))
}

/// `NEW_FLOW` as `NewFlow`.
fn to_variant(name: &str) -> String {
    let mut variant = String::new();
    for word in name.split('_') {
        let mut letters = word.chars();
        variant.extend(letters.next());
        variant.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    variant
}
