//! What is kept, and what is made of a file.

use std::time::Instant;

use super::*;
use crate::testing::log::logged;
use crate::testing::objects::{front, real};

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("kube-ipvs-proxy-state-{name}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        let _ = fs::remove_dir_all(&folder.0);
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.join("drains.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn clock() -> Clock {
    Clock { boot: "this".into(), since_boot: 100 * SECOND, now: Instant::now() }
}

fn deadlines(now: Instant) -> Vec<Deadline> {
    let deadline = |server: &str, pod: &str, seconds| Deadline {
        server: front(server),
        real: real(pod),
        at: now + seconds * SECOND,
    };
    vec![
        deadline("tcp 10.96.0.1:80", "10.244.1.2:8080", 900),
        deadline("sctp [fd00:96::1]:80", "[fd00:244::2]:8080", 10),
    ]
}

#[test]
fn a_deadline_is_the_same_moment_after_a_restart() {
    let clock = clock();
    let text = drains::text(&deadlines(clock.now), &clock);
    // The other process has a clock of another start; 30 seconds have passed.
    let now = clock.now + 1000 * SECOND;
    let later = Clock { since_boot: clock.since_boot + 30 * SECOND, now, ..clock };
    let found = drains::parse(&text, &later).unwrap();
    let expected: Vec<_> = deadlines(now - 30 * SECOND)
        .into_iter()
        // One that has passed ends at once.
        .map(|deadline| Deadline { at: deadline.at.max(now), ..deadline })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn deadlines_of_another_boot_are_none() {
    let text = drains::text(&deadlines(Instant::now()), &clock());
    let other = Clock { boot: "other".into(), ..clock() };
    assert_eq!(drains::parse(&text, &other).unwrap(), []);
}

#[test]
fn a_file_that_is_broken_is_as_none_and_named_once() {
    let folder = Folder::new("broken");
    let boot = Clock::read().unwrap().boot;
    let drain = |protocol: &str, deadline: &str| {
        format!(
            r#"{{"boot": "{boot}", "drains": [{{"protocol": "{protocol}", "server": "10.96.0.1:80",
             "realServer": "10.244.0.1:80", "deadline": {deadline}}}]}}"#
        )
    };
    fs::create_dir_all(&folder.0).unwrap();
    let too_late = drain("tcp", &u64::MAX.to_string());
    let broken = ["", "{", r#"{"boot": 1}"#, "\u{0}", &drain("icmp", "1"), &drain("tcp", "-1")];
    for text in broken {
        fs::write(folder.file(), text).unwrap();
        let lines = logged(tracing::Level::WARN, || assert_eq!(recall(&folder.file()), []));
        assert_eq!(lines.len(), 1, "{text:?}: {lines:?}");
        assert!(lines[0].contains("cannot read the deadlines of drains"), "{lines:?}");
    }
    // The clock of a kernel that can count so far takes it; nothing breaks either way.
    fs::write(folder.file(), too_late).unwrap();
    assert!(recall(&folder.file()).len() <= 1);
    fs::write(folder.file(), drain("tcp", "1")).unwrap();
    assert_eq!(recall(&folder.file()).len(), 1);
}

#[test]
fn a_missing_file_is_none_and_no_reason_to_warn() {
    let folder = Folder::new("missing");
    let lines = logged(tracing::Level::WARN, || assert_eq!(recall(&folder.file()), []));
    assert_eq!(lines, [""; 0]);
    forget(&folder.file()).unwrap();
}

/// The latest is there when the process ends, although not even a second has passed.
#[test]
fn the_latest_is_written_by_the_end() {
    let folder = Folder::new("latest");
    let (tell, latest) = watch::channel(Vec::new());
    let keeper = keep(folder.file(), latest).unwrap();
    let all = deadlines(Instant::now());
    tell.send_replace(all.clone());
    while !folder.file().exists() {
        std::thread::yield_now();
    }
    let began = Instant::now();
    tell.send_replace(all[..1].to_vec());
    drop(tell);
    keeper.join().unwrap();
    assert!(began.elapsed() < PAUSE);
    let found = recall(&folder.file());
    let [Deadline { server, real, at }] = found[..] else { panic!("{found:?}") };
    assert_eq!((server, real), (all[0].server, all[0].real));
    let (earlier, later) = (at.min(all[0].at), at.max(all[0].at));
    assert!(later - earlier < Duration::from_millis(100), "{:?}", later - earlier);
    forget(&folder.file()).unwrap();
    assert!(!folder.file().exists());
}

#[test]
fn a_folder_that_cannot_be_is_named_once_and_costs_nothing_else() {
    let folder = Folder::new("refused");
    fs::write(&folder.0, "a file").unwrap();
    let (tell, latest) = watch::channel(Vec::new());
    tell.send_replace(deadlines(Instant::now()));
    drop(tell);
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let path = folder.file();
    let lines = logged(tracing::Level::WARN, || runtime.block_on(follow(&path, latest)));
    assert_eq!(lines.len(), 1, "{lines:?}");
    fs::remove_file(&folder.0).unwrap();
}
