//! What is kept, and what is made of a file.

use std::collections::BTreeSet;
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

/// Waits for a condition, ten seconds at most.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + 10 * SECOND;
    while !holds() {
        assert!(Instant::now() < limit, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
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
    for sound in [too_late, drain("tcp", "1")] {
        fs::write(folder.file(), sound).unwrap();
        let found = recall(&folder.file());
        let found: Vec<_> = found.iter().map(|drain| (drain.server, drain.real)).collect();
        assert_eq!(found, [(front("tcp 10.96.0.1:80"), real("10.244.0.1:80"))]);
    }
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
    wait_until("the first are written", || folder.file().exists());
    tell.send_replace(all[..1].to_vec());
    drop(tell);
    keeper.join().unwrap();
    let found = recall(&folder.file());
    let [Deadline { server, real, at }] = found[..] else { panic!("{found:?}") };
    assert_eq!((server, real), (all[0].server, all[0].real));
    // The clocks are read one after the other.
    let (earlier, later) = (at.min(all[0].at), at.max(all[0].at));
    assert!(later - earlier < SECOND, "{:?}", later - earlier);
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

/// A thread that keeps deadlines next to a record of before, and cannot write.
struct Blocked {
    folder: Folder,
    obstacle: PathBuf,
    tell: watch::Sender<Vec<Deadline>>,
    keeper: JoinHandle<()>,
}

impl Blocked {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let obstacle = folder.file().with_extension("new");
        fs::create_dir_all(&obstacle).unwrap();
        let before = deadlines(Instant::now());
        fs::write(folder.file(), drains::text(&before, &Clock::read().unwrap())).unwrap();
        let (tell, latest) = watch::channel(Vec::new());
        let keeper = keep(folder.file(), latest).unwrap();
        tell.send_replace(before[..1].to_vec());
        Blocked { folder, obstacle, tell, keeper }
    }

    fn has_one_on_record(&self) -> bool {
        self.folder.file().exists() && recall(&self.folder.file()).len() == 1
    }
}

#[test]
fn what_cannot_be_written_leaves_no_old_record_and_is_tried_again() {
    let blocked = Blocked::new("again");
    wait_until("the old record is gone", || !blocked.folder.file().exists());
    fs::remove_dir(&blocked.obstacle).unwrap();
    wait_until("it is on record", || blocked.has_one_on_record());
    drop(blocked.tell);
    blocked.keeper.join().unwrap();
}

#[test]
fn what_could_not_be_written_is_tried_again_at_the_end() {
    let blocked = Blocked::new("end");
    wait_until("the old record is gone", || !blocked.folder.file().exists());
    let Blocked { folder, obstacle, tell, keeper } = blocked;
    fs::remove_dir(obstacle).unwrap();
    drop(tell);
    keeper.join().unwrap();
    assert_eq!(recall(&folder.file()).len(), 1);
}

#[test]
fn records_that_no_start_can_use_are_removed() {
    let folder = Folder::new("stale");
    fs::create_dir_all(&folder.0).unwrap();
    let clock = clock();
    let drains = deadlines(clock.now);
    let of_another_boot = drains::text(&drains, &Clock { boot: "other".into(), ..clock.clone() });
    // The last ends at 1000 seconds after the boot, or at 1001.
    let [over, longer] = [100, 101].map(|seconds| {
        drains::text(&drains, &Clock { since_boot: seconds * SECOND, ..clock.clone() })
    });
    for (name, text) in [
        ("drains-1.json", &of_another_boot),
        ("drains-2.json", &over),
        ("drains-3.json", &longer),
        ("drains-4.json", &drains::text(&[], &clock)),
        ("drains-5.json", &"broken".to_string()),
        ("drains-6.new", &of_another_boot),
        ("drains-7.new", &String::new()),
        ("others-1.json", &of_another_boot),
        ("others-1.new", &of_another_boot),
        ("drains-1.text", &of_another_boot),
    ] {
        fs::write(folder.0.join(name), text).unwrap();
    }
    remove_stale(&folder.0, &Clock { since_boot: 4600 * SECOND, ..clock });
    let left = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name());
    let left: BTreeSet<_> = left.map(|name| name.into_string().unwrap()).collect();
    let expected =
        ["drains-1.text", "drains-3.json", "drains-5.json", "others-1.json", "others-1.new"];
    assert!(left.iter().eq(expected), "{left:?}");
}

/// Its owner could write a record anew between a look at it and its removal.
#[test]
fn stale_records_stay_while_somebody_else_holds_the_folder() {
    let folder = Folder::new("anew");
    fs::create_dir_all(&folder.0).unwrap();
    let (path, clock) = (folder.0.join("drains-1.json"), clock());
    fs::write(&path, drains::text(&[], &Clock { boot: "other".into(), ..clock.clone() })).unwrap();
    let held = hold(&folder.0).unwrap();
    remove_stale(&folder.0, &clock);
    assert!(path.exists());
    drop(held);
    remove_stale(&folder.0, &clock);
    assert!(!path.exists());
}

/// Anybody who may read a folder can hold it for ever.
#[test]
fn a_folder_that_is_held_is_not_waited_for_without_end() {
    let folder = Folder::new("held");
    fs::create_dir_all(&folder.0).unwrap();
    let path = folder.file();
    let held = hold(&folder.0).unwrap();
    let error = write(&path, "new").unwrap_err();
    assert_eq!(error.to_string(), "another process has locked the folder");
    assert!(!path.exists() && !path.with_extension(NEW).exists());
    drop(held);
    write(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}
