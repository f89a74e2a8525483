//! The hook in keepalived's configuration: a file of this package with `vrrp_notify_fifo`, and one line in VyOS's file
//! that includes it.
//!
//! A second `global_defs` block is merged with the first, so VyOS's own `notify_fifo` stays as it is (observed with
//! keepalived 2.2.7). VyOS rewrites its file at every commit below `high-availability`, without the line.

use std::path::Path;

/// The text of this package's file.
pub fn render(fifo: &Path) -> String {
    format!(
        "# Made by vyos-aws-vipa: keepalived writes its VRRP transitions to this FIFO.\n\
         global_defs {{\n    vrrp_notify_fifo {}\n}}\n",
        fifo.display()
    )
}

/// The text to append to keepalived.conf so that it includes this package's file; `None` if it does already.
pub fn missing(conf: &[u8], include: &Path) -> Option<String> {
    let line = line(include);
    if conf.split(|b| *b == b'\n').any(|l| l.trim_ascii() == line.as_bytes()) {
        return None;
    }
    let end = if conf.is_empty() || conf.ends_with(b"\n") { "" } else { "\n" };
    Some(format!("{end}{line}\n"))
}

/// keepalived.conf with the `include` line at its beginning and nowhere else; `None` if it is so already. For a
/// keepalived.conf whose end keepalived ignores: a line there would be ignored too.
pub fn first(conf: &[u8], include: &Path) -> Option<Vec<u8>> {
    let line = line(include) + "\n";
    let rest = without(conf, include);
    let wanted = [line.as_bytes(), rest.as_deref().unwrap_or(conf)].concat();
    (wanted != conf).then_some(wanted)
}

/// keepalived.conf without the `include` line, all other bytes unchanged; `None` if there is no such line.
pub fn without(conf: &[u8], include: &Path) -> Option<Vec<u8>> {
    let line = line(include);
    let lines = conf.split_inclusive(|b| *b == b'\n').filter(|l| l.trim_ascii() != line.as_bytes());
    let kept: Vec<u8> = lines.flatten().copied().collect();
    (kept.len() < conf.len()).then_some(kept)
}

fn line(include: &Path) -> String {
    format!("include {}", include.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDE: &str = "/run/vyos-aws-vipa/keepalived.conf";

    #[test]
    fn the_line_is_added_once_and_taken_out_again() {
        let include = Path::new(INCLUDE);
        for conf in [
            &b""[..],
            b"vrrp_instance a {\n}\n",
            b"global_defs {\n}",
            b"# include /run/vyos-aws-vipa/keepalived.conf\n",
            b"# \xff\n",
        ] {
            let added = [conf, missing(conf, include).expect("missing").as_bytes()].concat();
            assert!(added.ends_with(format!("include {INCLUDE}\n").as_bytes()), "{added:?}");
            assert_eq!(missing(&added, include), None, "{added:?}");
            let moved = first(&added, include).unwrap_or_else(|| added.clone());
            assert!(moved.starts_with(format!("include {INCLUDE}\n").as_bytes()), "{moved:?}");
            assert_eq!((first(&moved, include), missing(&moved, include)), (None, None), "{moved:?}");
            assert_eq!(without(&moved, include), without(&added, include));
            let removed = without(&added, include).expect("there");
            assert_eq!(removed.trim_ascii_end(), conf.trim_ascii_end());
            assert_eq!(without(&removed, include), None);
        }
    }
}
