//! The whole text, and whose an address is.

use super::scheduling::flag_names;
use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn front(kind: &str, at: &str, reals: Option<Vec<Real>>) -> Front {
    Front {
        kind: kind.into(),
        protocol: "tcp".into(),
        address: address(at),
        note: None,
        bound: Bound::Yes,
        scheduling: reals.as_ref().map(|_| scheduling()),
        pending: None,
        reals,
        awaited: BTreeSet::new(),
    }
}

fn scheduling() -> Scheduling {
    Scheduling { scheduler: "rr".into(), flags: 0, persistence: None }
}

fn there(reals: impl Into<BTreeMap<SocketAddr, Glimpse>>) -> There {
    There { scheduling: scheduling(), reals: reals.into() }
}

fn real(at: &str, weight: u32, seconds_left: Option<u64>) -> Real {
    Real { address: address(at), weight, seconds_left }
}

fn picture() -> Picture {
    let web = vec![
        front(
            "cluster IP",
            "10.96.0.7:80",
            Some(vec![real("10.244.1.9:8080", 0, Some(872)), real("10.244.3.2:8080", 1, None)]),
        ),
        front("node port", "[2001:db8::1]:30080", Some(Vec::new())),
    ];
    let late = vec![front("cluster IP", "10.96.0.8:80", None)];
    Picture {
        version: "1.2.3".into(),
        services: [("default/web".into(), web), ("default/late".into(), late)].into(),
        rejected: vec![(
            "Service default/bad".into(),
            "tcp 10.96.0.7:80 belongs to another".into(),
        )],
        defaulted: vec![("Service default/odd".into(), "spec.type: x is none".into())],
        ..Picture::default()
    }
}

/// Who else asks for the address of its Service.
const LOST: &str = "\nrejected\n  Service default/bad: tcp 10.96.0.7:80 belongs to another\n";

fn counts() -> Counts {
    let glimpse = |weight, active, inactive| Glimpse {
        weight,
        connections: Connections { active, inactive },
    };
    let reals = [
        (address("10.244.1.9:8080"), glimpse(0, 3, 1)),
        (address("10.244.3.2:8080"), glimpse(1, 0, 12)),
    ];
    [
        (("tcp".into(), address("10.96.0.7:80")), there(reals)),
        (("udp".into(), address("10.96.0.7:80")), there([])),
        (("tcp".into(), address("[2001:db8::1]:30080")), there([])),
        (("tcp".into(), address("203.0.113.1:443")), there([])),
    ]
    .into()
}

#[test]
fn services_are_listed_by_name() {
    let expected = "\
kube-ipvs-proxy 1.2.3: 2 Services, 3 fronts, 1 draining real server, 1 rejected, 1 served with a default
not as wanted: 1 virtual server not made

default/late
  cluster IP tcp 10.96.0.8:80: not in the kernel

default/web
  cluster IP tcp 10.96.0.7:80  rr
    10.244.1.9:8080  draining, 872 s left at most, 3 active, 1 inactive
    10.244.3.2:8080  weight 1, 0 active, 12 inactive
  node port tcp [2001:db8::1]:30080  rr: takes no new connections

rejected
  Service default/bad: tcp 10.96.0.7:80 belongs to another

served with a default
  Service default/odd: spec.type: x is none
";
    assert_eq!(text(&picture(), Some(&counts())), expected);
    let without = expected.replace(", 3 active, 1 inactive", "");
    assert_eq!(text(&picture(), None), without.replace(", 0 active, 12 inactive", ""));
}

#[test]
fn what_the_kernel_has_lost_is_told() {
    let mut counts = counts();
    counts.remove(&("tcp".into(), address("[2001:db8::1]:30080")));
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    web.reals.remove(&address("10.244.3.2:8080"));
    let mut picture = picture();
    picture.services.get_mut("default/web").unwrap()[1].note = Some("no EndpointSlice".into());
    let text = text(&picture, Some(&counts));
    let of_port = "node port tcp [2001:db8::1]:30080  rr: no EndpointSlice";
    for row in [of_port, "10.244.3.2:8080  weight 1"] {
        assert!(text.contains(&format!("{row}: {GONE}\n")), "{text}");
    }
    assert_eq!(text.matches(GONE).count(), 2);
}

#[test]
fn a_weight_that_the_kernel_has_otherwise_is_told() {
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    web.reals.get_mut(&address("10.244.1.9:8080")).unwrap().weight = 5;
    web.reals.get_mut(&address("10.244.3.2:8080")).unwrap().weight = 0;
    let text = text(&picture(), Some(&counts));
    for line in [
        "  draining, 872 s left at most, but weight 5 in the kernel, 3 active, 1 inactive\n",
        "  weight 1, but 0 in the kernel, 0 active, 12 inactive\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_real_server_that_only_the_kernel_has_is_told() {
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    let connections = Connections { active: 2, inactive: 1 };
    web.reals.insert(address("203.0.113.66:80"), Glimpse { weight: 50, connections });
    let line = "\n    203.0.113.66:80  weight 50 in the kernel, of no endpoint, 2 active, 1 \
                inactive; an audit removes it\n";
    let told = text(&picture(), Some(&counts));
    assert!(told.contains(line), "{told}");
    assert!(!text(&picture(), Some(&self::counts())).contains("of no endpoint"));
}

#[test]
fn what_could_not_be_put_in_place_for_all_is_told() {
    let picture = Picture { lacks_foundation: true, ..picture() };
    let line = "not as wanted: not all that Services rely on is in place (see the log and /readyz)";
    let told = text(&picture, Some(&counts()));
    assert!(told.contains(line), "{told}");
    assert!(!text(&self::picture(), Some(&counts())).contains("/readyz"));
}

#[test]
fn a_real_server_that_is_wanted_is_not_called_of_no_endpoint() {
    let mut picture = picture();
    let late = address("10.244.3.9:8080");
    picture.services.get_mut("default/web").unwrap()[0].awaited.insert(late);
    let told = text(&picture, Some(&counts()));
    assert!(told.contains("\n    10.244.3.9:8080  not made yet\n"), "{told}");
    assert!(told.contains(", 1 real server not made\n"), "{told}");
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    let connections = Connections { active: 2, inactive: 1 };
    web.reals.insert(late, Glimpse { weight: 1, connections });
    let line = "\n    10.244.3.9:8080  weight 1 in the kernel, being made, 2 active, 1 inactive\n";
    let told = text(&picture, Some(&counts));
    assert!(told.contains(line), "{told}");
    assert!(is_otherwise(&picture, &counts, None), "by now it may be known to be made");
}

#[test]
fn scheduling_that_the_kernel_has_otherwise_is_told() {
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    web.scheduling = Scheduling { scheduler: "mh".into(), flags: 0x18, persistence: Some(300) };
    let late = Scheduling { scheduler: "sh".into(), ..scheduling() };
    let late = There { scheduling: late, ..There::default() };
    counts.insert(("tcp".into(), address("10.96.0.8:80")), late);
    let text = text(&picture(), Some(&counts));
    for line in [
        "  cluster IP tcp 10.96.0.7:80  rr: scheduler rr, but mh in the kernel; scheduler flags none, \
         but mh-fallback,mh-port in the kernel; persistence none, but 300 s in the kernel\n",
        "  cluster IP tcp 10.96.0.8:80: not in the kernel\n",
        "  node port tcp [2001:db8::1]:30080  rr: takes no new connections\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// A scheduler waits for its turn: what is made is told, and nobody else is blamed.
#[test]
fn scheduling_that_is_still_to_come_is_told_as_such() {
    let wanted = Scheduling { scheduler: "sh".into(), flags: 0x10, ..scheduling() };
    let web = front("cluster IP", "10.96.0.7:80", Some(Vec::new()));
    let web = Front { pending: Some(wanted), ..web };
    let told = |scheduler: &str| {
        let scheduling = Scheduling { scheduler: scheduler.into(), ..scheduling() };
        let there = There { scheduling, ..There::default() };
        front_lines(&web, Some(&[(web.key(), there)].into()))
    };
    let start = "  cluster IP tcp 10.96.0.7:80  rr: takes no new connections: ";
    let late = "scheduler rr, not yet sh; scheduler flags none, not yet sh-port\n";
    assert_eq!(told("rr"), format!("{start}{late}"));
    assert_eq!(front_lines(&web, None), format!("{start}{late}"));
    let changed = late.replace("yet sh;", "yet sh, but lc in the kernel;");
    assert_eq!(told("lc"), format!("{start}{changed}"));
}

/// What another daemon, or a hand, made of a scheduler that waits is not hidden as made by us.
#[test]
fn only_a_change_of_what_is_made_is_settled() {
    let key = ("tcp".to_owned(), address("10.96.0.7:80"));
    let mut counts = counts();
    counts.get_mut(&key).unwrap().scheduling.scheduler = "lc".into();
    let mut now = picture();
    let of_web = &mut now.services.get_mut("default/web").unwrap()[0];
    let sh = Scheduling { scheduler: "sh".into(), ..scheduling() };
    of_web.pending = Some(sh.clone());
    let mut settled = counts.clone();
    settle(&mut settled, &picture(), &now);
    assert_eq!(settled, counts);
    let mut made = picture();
    made.services.get_mut("default/web").unwrap()[0].scheduling = Some(sh.clone());
    settle(&mut settled, &now, &made);
    assert_eq!(settled[&key].scheduling, sh);
}

#[test]
fn flags_have_the_names_of_their_scheduler() {
    for (scheduler, flags, names) in [
        ("rr", 0, "none"),
        ("sh", 0x18, "sh-fallback,sh-port"),
        ("mh", 0x10, "mh-port"),
        ("rr", 0x38, "flag-1,flag-2,flag-3"),
        ("mh", 0x28, "mh-fallback,flag-3"),
        ("mh", 0x114, "mh-port,0x104"),
        ("rr", 0x4, "0x4"),
    ] {
        assert_eq!(flag_names(scheduler, flags), names);
    }
}

#[test]
fn flags_differ_by_number_and_are_named_by_one_scheduler() {
    let told = |[made, there]: [(&str, u32); 2]| {
        let [made, there] = [made, there].map(|(scheduler, flags)| Scheduling {
            scheduler: scheduler.into(),
            flags,
            persistence: None,
        });
        let web = front("cluster IP", "10.96.0.7:80", None);
        scheduling::differences(&Front { scheduling: Some(made), ..web }, Some(&there))
    };
    let other = |scheduler: &str| format!("scheduler {scheduler}, but sh in the kernel");
    assert_eq!(told([("rr", 0x10), ("sh", 0x10)]), Some(other("rr")));
    assert_eq!(told([("sh", 0x10), ("sh", 0x10)]), None);
    for (made, there, flags) in [
        (("rr", 0x10), ("sh", 0x18), "flag-2, but flag-1,flag-2 in the kernel"),
        (("mh", 0x10), ("sh", 0), "mh-port, but none in the kernel"),
        (("rr", 0), ("sh", 0x10), "none, but sh-port in the kernel"),
    ] {
        let expected = format!("{}; scheduler flags {flags}", other(made.0));
        assert_eq!(told([made, there]), Some(expected));
    }
}

/// Of a kernel that was read before the daemon changed it, or after.
#[test]
fn what_the_daemon_changed_meanwhile_is_no_difference() {
    let key = |at: &str| ("tcp".to_owned(), address(at));
    let mut other = picture();
    let fronts = other.services.get_mut("default/web").unwrap();
    let web = &mut fronts[0];
    web.scheduling.as_mut().unwrap().scheduler = "sh".into();
    let reals = web.reals.as_mut().unwrap();
    reals[0].weight = 3;
    reals[1].address = address("10.244.3.3:8080");
    fronts.remove(1);
    let new = front("cluster IP", "10.96.0.9:80", Some(vec![real("10.244.3.2:8080", 1, None)]));
    other.services.insert("default/new".into(), vec![new]);
    let mut of_other = counts();
    of_other.remove(&key("[2001:db8::1]:30080"));
    let web = of_other.get_mut(&key("10.96.0.7:80")).unwrap();
    web.scheduling.scheduler = "sh".into();
    web.reals.get_mut(&address("10.244.1.9:8080")).unwrap().weight = 3;
    let gone = web.reals.remove(&address("10.244.3.2:8080")).unwrap();
    web.reals.insert(address("10.244.3.3:8080"), gone);
    of_other.insert(key("10.96.0.9:80"), there([(address("10.244.3.2:8080"), gone)]));
    for (before, now) in [(&picture(), &other), (&other, &picture())] {
        for mut counts in [counts(), of_other.clone()] {
            settle(&mut counts, before, now);
            let text = text(now, Some(&counts));
            assert!(!text.contains(", but "), "{text}");
            assert!(!text.contains(GONE), "{text}");
            assert!(!text.contains("of no endpoint"), "{text}");
            let of_gone = owner(now, Some(&counts), Asked::Port(address("[2001:db8::1]:30080")));
            assert!(!of_gone.text.contains("foreign"), "{of_gone:?}");
        }
    }
}

#[test]
fn what_the_daemon_did_not_change_stays_a_difference() {
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    web.scheduling.scheduler = "sh".into();
    web.reals.get_mut(&address("10.244.3.2:8080")).unwrap().weight = 9;
    web.reals.remove(&address("10.244.1.9:8080"));
    counts.remove(&("tcp".into(), address("[2001:db8::1]:30080")));
    let mut settled = counts.clone();
    let mut now = picture();
    let of_web = now.services.get_mut("default/web").unwrap();
    of_web[0].reals.as_mut().unwrap()[0].seconds_left = Some(871);
    settle(&mut settled, &picture(), &now);
    assert_eq!(settled, counts);
}

#[test]
fn every_difference_that_is_told_is_one_to_ask_about() {
    let web = ("tcp".to_owned(), address("10.96.0.7:80"));
    let real = address("10.244.3.2:8080");
    let changes: [fn(&mut There, SocketAddr); 5] = [
        |there, real| {
            there.reals.remove(&real);
        },
        |there, real| there.reals.get_mut(&real).unwrap().weight = 9,
        |there, _| there.scheduling.scheduler = "sh".into(),
        |there, _| there.scheduling.flags = 0x10,
        |there, _| {
            there.reals.insert(address("203.0.113.66:80"), Glimpse::default());
        },
    ];
    assert!(!is_otherwise(&picture(), &counts(), None));
    for change in changes {
        let mut counts = counts();
        change(counts.get_mut(&web).unwrap(), real);
        assert!(is_otherwise(&picture(), &counts, None), "{counts:?}");
        assert!(
            !is_otherwise(&picture(), &counts, Some(Asked::Port(address("10.96.0.8:80")))),
            "{counts:?}"
        );
    }
    let mut gone = counts();
    gone.remove(&web);
    assert!(is_otherwise(&picture(), &gone, None));
    let mut made = counts();
    made.insert(("tcp".to_owned(), address("10.96.0.8:80")), there([]));
    assert!(is_otherwise(&picture(), &made, None), "what was not there is by now");
}

#[test]
fn an_address_is_a_services_or_foreign_or_nobodys() {
    let owner = |at: &str| {
        let owner = owner(&picture(), Some(&counts()), at.parse().unwrap());
        (owner.is_served, owner.text)
    };
    let (is_served, text) = owner("10.96.0.7:80");
    assert!(is_served);
    assert!(
        text.starts_with("default/web\n  cluster IP tcp 10.96.0.7:80  rr\n    10.244"),
        "{text}"
    );
    let end = format!("\nudp 10.96.0.7:80 is foreign: in the kernel, and of no Service\n{LOST}");
    assert!(text.ends_with(&end), "{text}");
    let foreign = "tcp 203.0.113.1:443 is foreign: in the kernel, and of no Service\n";
    assert_eq!(owner("203.0.113.1:443"), (false, foreign.to_string()));
    let other_port = "10.96.0.7:81 is nobody's: Service default/web has the address, but not \
                      this port\n";
    assert_eq!(owner("10.96.0.7:81"), (false, other_port.to_string()));
    let nobodys = "192.0.2.9:80 is nobody's: no Service that is served here has the address\n";
    assert_eq!(owner("192.0.2.9:80"), (false, nobodys.to_string()));
}

#[test]
fn an_address_without_a_port_is_told_with_all_of_its_ports() {
    let mut picture = picture();
    let more = front("cluster IP", "10.96.0.7:443", Some(Vec::new()));
    picture.services.get_mut("default/web").unwrap().push(more);
    let mut counts = counts();
    counts.insert(("tcp".into(), address("10.96.0.7:443")), there([]));
    let told = owner(&picture, Some(&counts), "10.96.0.7".parse().unwrap());
    let expected = "\
default/web
  cluster IP tcp 10.96.0.7:80  rr
    10.244.1.9:8080  draining, 872 s left at most, 3 active, 1 inactive
    10.244.3.2:8080  weight 1, 0 active, 12 inactive
  cluster IP tcp 10.96.0.7:443  rr: takes no new connections
udp 10.96.0.7:80 is foreign: in the kernel, and of no Service
";
    let expected = format!("{expected}{LOST}");
    assert_eq!((told.text, told.is_served), (expected, true));
    let nobody = owner(&picture, Some(&counts), "10.96.0.9".parse().unwrap());
    let expected = "10.96.0.9 is nobody's: no Service that is served here has the address\n";
    assert_eq!((nobody.text.as_str(), nobody.is_served), (expected, false));
}

#[test]
fn an_address_is_told_with_what_is_said_of_it_and_of_its_service() {
    let mut picture = picture();
    let complaint = |what: &str, why: &str| (what.to_owned(), why.to_owned());
    let left = "203.0.113.1 is in --ipvs-exclude-cidrs, so left to others";
    picture.rejected.push(complaint("Service default/left", left));
    picture.rejected.push(complaint("Service default/web", "spec.ports[1].port: 0 is none"));
    picture.defaulted.push(complaint("Service default/web", "spec.type: y is none"));
    let told = |at: &str| owner(&picture, None, at.parse().unwrap());
    let of_web = "  Service default/web: spec.ports[1].port: 0 is none\n\nserved with a default\n  \
                  Service default/web: spec.type: y is none\n";
    let web = told("10.96.0.7");
    assert!(web.text.ends_with(&format!("{LOST}{of_web}")), "{}", web.text);
    assert!(web.is_served, "what others ask for in vain is no difference in the kernel");
    let node_port = told("[2001:db8::1]:30080").text;
    assert!(node_port.ends_with(&format!("\n\nrejected\n{of_web}")), "{node_port}");
    let late = told("10.96.0.8:80").text;
    assert_eq!(late, "default/late\n  cluster IP tcp 10.96.0.8:80: not in the kernel\n");
    let excluded = told("203.0.113.1:443").text;
    let expected = format!("has the address\n\nrejected\n  Service default/left: {left}\n");
    assert!(excluded.ends_with(&expected), "{excluded}");
}

/// After a flush of everything, each kind of row is counted by itself.
#[test]
fn what_differs_is_counted_by_kind() {
    assert!(differences(&picture(), None).to_string().starts_with("1 virtual server not made"));
    let gone = differences(&picture(), Some(&Counts::new())).to_string();
    let expected = "1 virtual server not made, 2 virtual servers missing, 2 real servers missing";
    assert_eq!(gone, expected);
    let mut counts = counts();
    let web = counts.get_mut(&("tcp".into(), address("10.96.0.7:80"))).unwrap();
    web.scheduling.scheduler = "sh".into();
    web.reals.remove(&address("10.244.1.9:8080"));
    web.reals.get_mut(&address("10.244.3.2:8080")).unwrap().weight = 9;
    web.reals.insert(address("203.0.113.66:80"), Glimpse::default());
    let other = differences(&picture(), Some(&counts)).to_string();
    let expected = "1 virtual server not made, 1 virtual server changed, 1 real server missing, \
                    1 real server changed, 1 real server of no endpoint";
    assert_eq!(other, expected);
    let told = owner(&picture(), Some(&counts), "10.96.0.7:80".parse().unwrap());
    assert!(!told.is_served, "{told:?}");
}

#[test]
fn a_refused_file_is_named_and_may_be_what_looks_foreign() {
    let file = ("/m/a.yaml".to_string(), "line 3: odd".to_string());
    let picture = Picture { refused: vec![file], ..picture() };
    let text = text(&picture, None);
    assert!(
        text.lines()
            .next()
            .unwrap()
            .ends_with(", 1 served with a default, 1 file refused, whole or in part"),
        "{text}"
    );
    assert!(text.ends_with("\nrefused files\n  /m/a.yaml: line 3: odd\n"), "{text}");
    let owner = owner(&picture, Some(&counts()), Asked::Port(address("203.0.113.1:443")));
    let told = "foreign, or of what cannot be used of /m/a.yaml\n\nrefused files\n  /m/a.yaml: line 3: odd\n";
    assert!(owner.text.ends_with(told), "{owner:?}");
}

#[test]
fn an_api_server_that_is_lost_is_told_and_changes_nothing_else() {
    let lost = "no news of Service for 312 s, they may be old: API server x is away: no route";
    let before = picture();
    let picture = Picture { unreadable: vec![lost.to_owned()], ..picture() };
    let told = text(&picture, Some(&counts()));
    assert_eq!(told.lines().nth(1), Some(lost), "{told}");
    assert_eq!(told.replacen(&format!("{lost}\n"), "", 1), text(&before, Some(&counts())));
    let differences = |picture| differences(picture, Some(&counts())).is_empty();
    assert_eq!(differences(&picture), differences(&before));
    for at in ["10.96.0.7:80", "192.0.2.9:80"] {
        let owner = |picture| owner(picture, Some(&counts()), Asked::Port(address(at)));
        let (told, before) = (owner(&picture), owner(&before));
        assert_eq!(told.is_served, before.is_served, "{told:?}");
        assert_eq!(told.text.matches(&format!("\n{lost}\n")).count(), 1, "{told:?}");
    }
    let json = serde_json::to_string(&before).unwrap().replace("\"unreadable\":[],", "");
    assert_eq!(serde_json::from_str::<Picture>(&json).unwrap(), before, "an older daemon");
}

#[test]
fn a_front_that_does_not_serve_everybody_says_why() {
    let note = Some("none of 2 endpoints is ready".to_string());
    let front = Front { note, ..front("node port", "192.0.2.1:30080", Some(Vec::new())) };
    let expected = "  node port tcp 192.0.2.1:30080  rr: takes no new connections: none of 2 endpoints \
                    is ready\n";
    assert_eq!(front_lines(&front, None), expected);
}

#[test]
fn a_picture_survives_the_way_to_its_reader() {
    let sent = serde_json::to_string(&picture()).unwrap();
    assert_eq!(serde_json::from_str::<Picture>(&sent).unwrap(), picture());
}
