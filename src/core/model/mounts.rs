//! Which file systems a path crosses, by `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! The lookup of a name on a file system that is served by another machine or by a program may block forever: no
//! time-out and no SIGKILL ends it. So the file system has to be determined beforehand, from the mount table alone.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The number of symbolic links that the kernel follows in one path (path_resolution(7)).
const MAX_SYMBOLIC_LINKS: usize = 40;

/// Types of file systems that are served by other machines or by a program. Those of FUSE are recognised by their
/// prefix.
const NOT_LOCAL: [&str; 24] = [
    "9p",
    "afs",
    "autofs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
    "wekafs",
];

/// The mounts of a process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u32,
    /// The mount that contains this one's mount point; a second mount on one point is on the first.
    parent: u32,
    point: PathBuf,
    kind: String,
}

/// The path crosses a file system that could hang.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[error(
    "the path is on mount {} of type {kind}, which may hang: copy the file to /config/auth, and configure that path",
    point.display()
)]
pub struct NotLocal {
    point: PathBuf,
    kind: String,
}

/// Why a path cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// It crosses a file system that could hang, which was not accessed.
    #[error(transparent)]
    NotLocal(#[from] NotLocal),
    /// It has more symbolic links than the kernel follows.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
    /// A part of it does not exist, or cannot be accessed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Mounts {
    /// The mounts of a mountinfo file.
    ///
    /// # Errors
    /// The number of a line that cannot be parsed: it could describe any mount.
    pub fn parse(mountinfo: &[u8]) -> Result<Self, usize> {
        let lines = mountinfo.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        lines.map(|(index, line)| Mount::parse(line).ok_or(index + 1)).collect::<Result<_, _>>().map(Self)
    }

    /// The path without symbolic links, `.` and `..`. `link` returns the target of a symbolic link, and `None` for
    /// another file; it is called only for paths on local file systems.
    ///
    /// # Errors
    /// [`Unresolved`]: the file system that it names has not been accessed.
    pub fn resolve(
        &self,
        path: &Path,
        link: impl Fn(&Path) -> io::Result<Option<PathBuf>>,
    ) -> Result<PathBuf, Unresolved> {
        let mut place = PathBuf::from("/");
        // The mount of the root, and of each directory on the way.
        let mut on = vec![self.enter(None, &place)?];
        let mut left = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_bytes() {
                b"." => {}
                b"/" => {
                    place = PathBuf::from("/");
                    on.truncate(1);
                }
                b".." => {
                    if place.pop() {
                        on.pop();
                    }
                }
                _ => {
                    place.push(&part);
                    on.push(self.enter(on.last().copied().flatten(), &place)?);
                    if let Some(target) = link(&place)? {
                        links += 1;
                        if links > MAX_SYMBOLIC_LINKS {
                            return Err(Unresolved::TooManyLinks);
                        }
                        place.pop();
                        on.pop();
                        left.extend(parts(&target));
                    }
                }
            }
        }
        Ok(place)
    }

    /// The mount of a path whose directory is on the mount `on`: the same mount, unless another one is mounted at the
    /// path.
    fn enter(&self, mut on: Option<u32>, path: &Path) -> Result<Option<u32>, NotLocal> {
        let mut waiting: Vec<&Mount> = self.0.iter().filter(|mount| mount.point == path).collect();
        // Each mount is entered once, so the loop ends.
        while let Some(index) = waiting.iter().rposition(|mount| self.is_on(mount, on)) {
            let mount = waiting.remove(index);
            if !mount.is_local() {
                return Err(NotLocal { point: mount.point.clone(), kind: mount.kind.clone() });
            }
            on = Some(mount.id);
        }
        Ok(on)
    }

    /// Whether a mount's point is on that mount. Without a mount: whether the point is outside of the process's view,
    /// like that of its root.
    fn is_on(&self, mount: &Mount, on: Option<u32>) -> bool {
        match on {
            Some(id) => mount.parent == id,
            None => self.0.iter().all(|other| other.id != mount.parent || other.id == mount.id),
        }
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        // Device and root come before the point, options after it; then any number of fields until a hyphen.
        let point = PathBuf::from(unescaped(fields.nth(2)?));
        fields.nth(0)?;
        fields.find(|field| *field == b"-")?;
        let kind = unescaped(fields.next()?).to_string_lossy().into_owned();
        (point.is_absolute() && !kind.is_empty()).then_some(Self { id, parent, point, kind })
    }

    fn is_local(&self) -> bool {
        !self.kind.starts_with("fuse") && !NOT_LOCAL.contains(&self.kind.as_str())
    }
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// The kernel writes a character that would end a field as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, more @ ..] = rest {
        let digits = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// The mounts of a VyOS router, and those that an operator may add.
    const ROUTER: &str = r"21 26 0:20 / /proc rw,nosuid shared:12 - proc proc rw
22 26 0:21 / /sys rw,nosuid shared:2 - sysfs sysfs rw
26 1 0:24 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/live/rootfs/filesystem.squashfs/,upperdir=/live/persistence/rw
27 26 259:3 /boot/1.4/rw/config /config rw,relatime shared:28 - ext4 /dev/nvme0n1p3 rw
28 26 7:0 / /usr/lib/live/mount/rootfs/filesystem.squashfs ro shared:29 - squashfs /dev/loop0 ro
29 21 0:30 / /proc/sys/fs/binfmt_misc rw shared:13 - autofs systemd-1 rw,fd=29
30 26 0:41 / /opt/vyatta/config/tmp/new_config_77 rw shared:5 - fuse.unionfs-fuse unionfs-fuse rw
31 26 0:42 / /mnt/two\040words\134\011 rw - nfs4 10.0.0.1:/a rw
32 26 0:43 / /mnt/over rw shared:50 master:7 - nfs nas:/b rw
33 26 0:44 / /mnt/hidden/by rw - cifs //nas/c rw
34 26 259:4 / /mnt/hidden rw - ext4 /dev/nvme1n1 rw
35 34 0:45 / /mnt/hidden/9 rw - 9p host rw
36 27 0:46 /key /config/auth/key rw - fuse.sshfs nas: rw
37 26 0:47 / /mnt/stack rw - tmpfs tmpfs rw
38 37 0:48 / /mnt/stack rw - fuse stack rw
";

    /// The resolved path or the reason, and the paths that `link` was called for.
    fn resolved(mounts: &Mounts, links: &BTreeMap<&str, &str>, path: &str) -> (String, Vec<String>) {
        let asked = RefCell::new(Vec::new());
        let link = |at: &Path| {
            let at = at.to_str().expect("text");
            asked.borrow_mut().push(at.to_owned());
            Ok(links.get(at).map(PathBuf::from))
        };
        let found = match mounts.resolve(Path::new(path), link) {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        };
        (found, asked.into_inner())
    }

    #[test]
    fn what_is_not_local_is_refused_and_never_asked() {
        let mounts = Mounts::parse(ROUTER.as_bytes()).expect("mounts");
        let links = BTreeMap::from([
            ("/config/plain", "aws/credentials"),
            ("/config/up", "../../config/./aws//credentials"),
            ("/config/away", "/mnt/over/a/credentials"),
            ("/config/chain", "away"),
            ("/config/sly", "../mnt/over/../../config/aws"),
            ("/config/loop", "loop"),
            ("/opt/vyatta/etc/config", "/config"),
        ]);
        let mut chain = links.clone();
        let names: Vec<String> = (0..=MAX_SYMBOLIC_LINKS).map(|n| format!("/l{n}")).collect();
        chain.extend(names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())));

        let refused = |point: &str, kind: &str| {
            format!(
                "the path is on mount {point} of type {kind}, which may hang: copy the file to /config/auth, and configure that path"
            )
        };
        for (path, expected) in [
            ("/config/aws/credentials", "/config/aws/credentials".to_owned()),
            ("/config/plain", "/config/aws/credentials".to_owned()),
            ("/config/up", "/config/aws/credentials".to_owned()),
            ("/opt/vyatta/etc/config/aws/credentials", "/config/aws/credentials".to_owned()),
            ("/../../root/.aws/credentials", "/root/.aws/credentials".to_owned()),
            ("/mnt/overlong", "/mnt/overlong".to_owned()),
            // The mount below is unreachable.
            ("/mnt/hidden/by/credentials", "/mnt/hidden/by/credentials".to_owned()),
            ("/l0", "/l40".to_owned()),
            ("/config/loop", "too many levels of symbolic links".to_owned()),
            ("/mnt/over/credentials", refused("/mnt/over", "nfs")),
            ("/mnt/over", refused("/mnt/over", "nfs")),
            ("/mnt/over/../../config/aws", refused("/mnt/over", "nfs")),
            ("/config/away", refused("/mnt/over", "nfs")),
            ("/config/chain", refused("/mnt/over", "nfs")),
            ("/config/sly", refused("/mnt/over", "nfs")),
            ("/mnt/two words\\\t/credentials", refused("/mnt/two words\\\t", "nfs4")),
            ("/mnt/hidden/9/credentials", refused("/mnt/hidden/9", "9p")),
            ("/config/auth/key", refused("/config/auth/key", "fuse.sshfs")),
            ("/mnt/stack/credentials", refused("/mnt/stack", "fuse")),
            ("/proc/sys/fs/binfmt_misc/credentials", refused("/proc/sys/fs/binfmt_misc", "autofs")),
        ] {
            let (found, asked) = resolved(&mounts, &chain, path);
            assert_eq!(found, expected, "{path}");
            let is_away = |at: &String| {
                ["/mnt/over", "/mnt/two words", "/mnt/hidden/9", "/config/auth/key", "/mnt/stack"]
                    .iter()
                    .any(|point| at == point || at.starts_with(&format!("{point}/")))
            };
            assert!(!asked.iter().any(is_away), "{path}: {asked:?}");
        }
    }

    #[test]
    fn one_link_more_than_the_kernel_follows_is_refused() {
        let mounts = Mounts::parse(ROUTER.as_bytes()).expect("mounts");
        let names: Vec<String> = (0..=MAX_SYMBOLIC_LINKS + 1).map(|n| format!("/l{n}")).collect();
        let links = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        assert_eq!(resolved(&mounts, &links, "/l1").0, "/l41");
        assert_eq!(resolved(&mounts, &links, "/l0").0, "too many levels of symbolic links");
    }

    #[test]
    fn the_mounts_of_this_machine_are_read() {
        let text = std::fs::read("/proc/self/mountinfo").expect("mountinfo");
        let mounts = Mounts::parse(&text).expect("mounts");
        let names: Vec<&str> = mounts.0.iter().map(|mount| mount.kind.as_str()).collect();
        assert!(names.contains(&"proc"), "{names:?}");
        // At most the root is on a mount that is not listed.
        let roots = mounts.0.iter().filter(|mount| mounts.is_on(mount, None)).count();
        assert!(roots <= 1, "{mounts:?}");
    }

    #[test]
    fn rubbish_is_refused_with_its_line() {
        for line in [
            "x 1 0:1 / / rw - ext4 a rw",
            "2 x 0:1 / / rw - ext4 a rw",
            "2 1 0:1 / / rw",
            "2 1 0:1 / / rw -",
            "2 1 0:1 / / -",
            "2 1 0:1 / here rw - ext4 a rw",
            "2",
            " ",
            "2 1 0:1 / / rw -  a rw",
        ] {
            assert_eq!(Mounts::parse(format!("{ROUTER}{line}\n").as_bytes()), Err(16), "{line:?}");
        }
        assert_eq!(Mounts::parse(b""), Ok(Mounts(Vec::new())));
        // Two mounts that are on each other affect no other path.
        let knot = b"1 0 0:1 / / rw - ext4 a rw\n2 3 0:1 / /a rw - ext4 a rw\n3 2 0:1 / /a rw - ext4 a rw\n\
                     4 1 0:1 / /a rw - ext4 a rw\n5 4 0:1 / /a rw - ext4 a rw\n4 5 0:1 / /a rw - ext4 a rw\n";
        assert_eq!(resolved(&Mounts::parse(knot).expect("mounts"), &BTreeMap::new(), "/a/b").0, "/a/b");
        for field in [r"\", r"\0", r"\04", r"\999", r"\777", "\\\u{e9}x"] {
            assert_eq!(unescaped(field.as_bytes()), field, "not an escape");
        }
    }
}
