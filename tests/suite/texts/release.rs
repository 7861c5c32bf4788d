//! `scripts/release --check`, on a small tree of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn git(tree: &Path, words: &[&str]) {
    let settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").arg("-C").arg(tree).args(settings).args(words).output().expect("git");
    assert!(output.status.success(), "{words:?}: {output:?}");
}

fn check(tree: &Path) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/release");
    Command::new(script).arg("--check").env("RELEASE_ROOT", tree).output().expect("bash")
}

fn write(tree: &Path, name: &str, text: &str) {
    fs::write(tree.join(name), text).expect("a file");
}

#[test]
fn a_release_wants_a_clean_tree_a_tag_and_a_section_of_its_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path();
    write(tree, "Cargo.toml", "[package]\nname = \"portcullis\"\nversion = \"1.2.3\"\n");
    write(tree, "Cargo.lock", "[[package]]\nname = \"portcullis\"\nversion = \"1.2.3\"\n");
    write(tree, "CHANGELOG.md", "## [Unreleased]\n\n## [1.2.3] - 2026-11-30\n\n- Something.\n");
    git(tree, &["init", "-q"]);
    git(tree, &["add", "."]);
    git(tree, &["commit", "-qm", "a"]);
    let refuses = |words: &str| {
        let output = check(tree);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let bad: Vec<&str> =
            said.lines().filter(|line| line.contains("✗") || line.contains("FAILED")).collect();
        assert!(bad.len() == 1 && bad[0].contains(words), "{words}: {said}");
    };
    refuses("HEAD has the tag v1.2.3");
    git(tree, &["tag", "v1.2.3"]);
    assert!(check(tree).status.success(), "{:?}", check(tree));

    write(tree, "note", "x");
    refuses("the tree is clean");
    let tag_anew = || {
        git(tree, &["add", "."]);
        git(tree, &["commit", "-qm", "b"]);
        git(tree, &["tag", "-f", "v1.2.3"]);
    };
    write(tree, "CHANGELOG.md", "## [Unreleased]\n\n- More.\n\n## [1.2.3] - 2026-11-30\n");
    tag_anew();
    refuses("nothing waits in [Unreleased]");
    write(tree, "CHANGELOG.md", "## [Unreleased]\n\n## [1.2.2] - 2026-11-30\n");
    tag_anew();
    refuses("CHANGELOG.md has 1.2.3");
    write(tree, "CHANGELOG.md", "## [Unreleased]\n\n## [1.2.3] - 2026-11-30\n");
    write(tree, "Cargo.lock", "[[package]]\nname = \"portcullis\"\nversion = \"1.2.2\"\n");
    tag_anew();
    refuses("Cargo.lock has 1.2.3");
}
