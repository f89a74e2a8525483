//! Files of every released format, in one directory each: an upgrade reads files of the earlier version.
//!
//! A new format gets a new directory, and the old ones stay unchanged.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::config::Config;
use vyos_aws_vipa::agent::state::PersistentState;
use vyos_aws_vipa::fs::credentials_file::CredentialsCopy;
use vyos_aws_vipa::fs::json_file::{self, FORMAT};

/// The files that survive an upgrade, in /run/vyos-aws-vipa and /var/lib/vyos-aws-vipa, except warned.json: losing it is
/// harmless.
const FILES: [&str; 11] = [
    "config-with-routes.json",
    "config.json",
    "credentials.json",
    "eni-cache.json",
    "failovers.json",
    "groups.json",
    "history.json",
    "ownership-losses.json",
    "pauses.json",
    "permissions.json",
    "proofs.json",
];

fn directory(format: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/{format}"))
}

/// The file as this version reads it, as JSON.
fn read<T: DeserializeOwned + Serialize>(path: &Path) -> Value {
    let value: T = json_file::read(path).unwrap_or_else(|error| panic!("{error}"));
    serde_json::to_value(value).expect("JSON")
}

fn read_all(format: u64) -> Vec<(&'static str, Value)> {
    let directory = directory(format);
    let state = PersistentState::load(&directory);
    let json = |value: Result<Value, serde_json::Error>| value.expect("JSON");
    vec![
        ("config-with-routes.json", read::<Config>(&directory.join("config-with-routes.json"))),
        ("config.json", read::<Config>(&directory.join("config.json"))),
        ("credentials.json", read::<CredentialsCopy>(&directory.join("credentials.json"))),
        ("eni-cache.json", json(serde_json::to_value(state.enis.get()))),
        ("failovers.json", json(serde_json::to_value(state.failovers.get()))),
        ("groups.json", read::<Groups>(&directory.join("groups.json"))),
        ("history.json", json(serde_json::to_value(state.history.get()))),
        ("ownership-losses.json", json(serde_json::to_value(state.loss_history.get()))),
        ("pauses.json", json(serde_json::to_value(state.pauses.get()))),
        ("permissions.json", json(serde_json::to_value(state.permissions.get()))),
        ("proofs.json", json(serde_json::to_value(state.proofs.get()))),
    ]
}

#[test]
fn every_released_format_is_kept_and_read() {
    for format in 1..=FORMAT {
        let mut names: Vec<_> = fs::read_dir(directory(format))
            .unwrap_or_else(|error| panic!("format {format} has no directory: {error}"))
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        assert_eq!(names, FILES, "format {format}");
        for (name, value) in read_all(format) {
            // A state file that cannot be read counts as empty.
            let length = value.as_object().map_or(0, |o| o.values().map(|v| v.to_string().len()).sum::<usize>());
            assert!(length > 20, "format {format}, {name}: {value}");
        }
    }
}

#[test]
fn of_the_current_format_nothing_is_lost() {
    for (name, mut value) in read_all(FORMAT) {
        let text = fs::read_to_string(directory(FORMAT).join(name)).expect("read");
        value.as_object_mut().expect("an object").insert("format".to_owned(), FORMAT.into());
        assert_eq!(value, serde_json::from_str::<Value>(&text).expect("JSON"), "{name}");
    }
}

/// An agent from before a field refuses a file that has it: one is written only if it is needed.
#[test]
fn a_configuration_without_routes_and_elastic_ips_is_written_as_before_them() {
    let sample = directory(1).join("config.json");
    let config: Config = json_file::read(&sample).expect("read");
    let directory = tempfile::tempdir().expect("a directory");
    let written = directory.path().join("config.json");
    json_file::write(&written, 0o644, &config).expect("written");
    let json = |path| serde_json::from_slice::<Value>(&fs::read(path).expect("read")).expect("JSON");
    assert_eq!(json(&written), json(&sample));
}
