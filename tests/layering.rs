//! Each layer uses only those below it: the directions that src/lib.rs draws, checked against every `crate::` path. Unit
//! tests may set their scene with whatever they need.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. Modules of one layer do not use each other.
const LAYERS: [&[&str]; 11] = [
    &["units", "clock", "log_budget"],
    &["store"],
    &["task"],
    &["map"],
    &["volume"],
    &["admin", "device"],
    &["export", "config"],
    &["daemon"],
    &["control"],
    &["cli"],
    &["main", "lib"],
];

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no layer: give it one here and in src/lib.rs"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level module that a file under src/ belongs to.
fn module_of(path: &Path, root: &Path) -> String {
    let first = path.strip_prefix(root).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The top-level modules that the code names as `crate::module` or `archvhost::module`, comments left out.
fn used_modules(text: &str) -> BTreeSet<String> {
    let shipped = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let code: Vec<_> = shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut used = BTreeSet::new();
    for prefix in ["crate::", "archvhost::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => used.extend(grouped(group)),
                None => {
                    used.insert(identifier(rest));
                }
            }
        }
    }
    used.remove("");
    used
}

/// The first names in `{a::{b, c}, d}`, given what follows the brace.
fn grouped(group: &str) -> Vec<String> {
    let (mut depth, mut at_start, mut names) = (0, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ if at_start && !character.is_whitespace() => {
                names.push(identifier(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

#[test]
fn no_module_uses_one_beside_or_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let user = module_of(&file, &root);
        for used in used_modules(&fs::read_to_string(&file).unwrap()) {
            if used != user && layer(&used) >= layer(&user) {
                wrong.push(format!("{}: {user} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers:\n{}", wrong.join("\n"));
}

#[test]
fn paths_and_groups_are_seen() {
    let text = "use crate::store::Op;\nuse crate::{units::{A, B}, volume};\n// crate::cli\nlet x = crate::map::y();\n\
                #[cfg(test)]\nmod tests {\n    use crate::control::server;\n}";
    let expected: Vec<_> = used_modules(text).into_iter().collect();
    assert_eq!(expected, ["map", "store", "units", "volume"]);
}
