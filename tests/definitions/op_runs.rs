//! What the operational templates of the package run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What each operational command runs, by its words; `<>` stands for an argument.
pub fn op_runs() -> BTreeMap<String, String> {
    let mut runs = BTreeMap::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vyos-templates/op"), "", &mut runs);
    runs
}

fn add(directory: &Path, words: &str, runs: &mut BTreeMap<String, String>) {
    for path in fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path()) {
        match path.file_name().and_then(|name| name.to_str()).expect("a name") {
            "node.def" => {
                let text = fs::read_to_string(&path).expect("a template");
                if let Some(run) = text.lines().find_map(|line| line.strip_prefix("run: ")) {
                    runs.insert(words.trim_start().to_owned(), run.to_owned());
                }
            }
            "node.tag" => add(&path, &format!("{words} <>"), runs),
            word => add(&path, &format!("{words} {word}"), runs),
        }
    }
}
