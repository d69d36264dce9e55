//! A restart at which a part of the cluster cannot be read.

use std::slice::from_ref;

use super::*;

/// A Service with its endpoints.
fn of(name: &str, address: &str, endpoints: &[&str]) -> [Update; 2] {
    let endpoints: Vec<_> = endpoints.iter().map(|address| endpoint(address)).collect();
    [
        service(name, &[address], &["tcp 80"]).applied(),
        slice_applied(name, &["tcp 8080"], &endpoints),
    ]
}

/// Whole lists of what can be read; the end says whether that is all.
fn tell(node: &mut Node, known: &[Update], end: fn(Kind) -> Update) {
    for kind in Kind::ALL {
        node.tell([Update::ListStarted(kind)]);
        node.tell(known.iter().filter(|update| update.object() == Some(kind)).cloned());
        node.tell([end(kind)]);
    }
}

/// A node that served two Services, which share an endpoint, when it was restarted.
fn restarted(known: &[Update]) -> Node {
    let unread = of("default/unread", "10.96.0.2", &["10.244.1.1"]);
    let mut node = Node::new(known.iter().cloned().chain(unread));
    assert!(node.sync().is_complete());
    node.restart([]);
    tell(&mut node, known, Update::ListIncomplete);
    let report = node.sync();
    assert!(report.is_partial && report.is_complete() && report.changes() == 0, "{report}");
    assert!(report.to_string().contains("could not be read"), "{report}");
    node
}

#[test]
fn what_was_read_comes_and_goes_and_the_rest_stays() {
    let mut node = restarted(&of("default/web", "10.96.0.1", &["10.244.1.1", "10.244.1.2"]));
    let unread = |node: &Node| {
        let front = front("tcp 10.96.0.2:80");
        let tables = &node.kernel.tables;
        let is_bound = tables.addresses.contains_key(&front.address);
        tables.serves(&front) && tables.lists(SetId::Pass, &front) && is_bound
    };
    tell(&mut node, &of("default/web", "10.96.0.1", &["10.244.1.1"]), Update::ListIncomplete);
    let changes = node.changes();
    assert!(changes.contains("> 10.244.1.2:8080  weight 1 to weight 0"), "{changes}");
    node.wait(2);
    assert_eq!(node.changes(), "reals     - tcp 10.96.0.1:80 > 10.244.1.2:8080\n", "it drains");
    tell(&mut node, &[], Update::ListIncomplete);
    node.sync();
    assert!(!node.kernel.tables.servers.contains_key(&front("tcp 10.96.0.1:80")));
    // The endpoint of both may ask for itself still.
    assert!(unread(&node));
    node.wait(3600);
    node.sync();
    assert!(unread(&node), "an audit changes nothing about it");
    tell(&mut node, &[], Update::ListDone);
    node.sync();
    assert!(!unread(&node));
}

#[test]
fn an_address_and_a_slice_that_an_unread_part_shares_stay() {
    let mut node = Node::new(
        of("default/web", "10.96.0.1", &["10.244.1.1", "10.244.1.2"]).into_iter().chain([
            service("default/unread", &["10.96.0.1"], &["tcp 81"]).applied(),
            slice_applied("default/unread", &["tcp 8080"], &[endpoint("10.244.1.3")]),
        ]),
    );
    assert!(node.sync().is_complete());
    // Of the slices of web one is read, which has one endpoint.
    let read = of("default/web", "10.96.0.1", &["10.244.1.1"]);
    node.restart([]);
    tell(&mut node, &read, Update::ListIncomplete);
    assert_eq!(node.sync().changes(), 0);
    let web = front("tcp 10.96.0.1:80");
    tell(&mut node, &of("default/web", "10.96.0.1", &[]), Update::ListIncomplete);
    node.sync();
    let weight = |node: &Node, real: &str| {
        let server = &node.kernel.tables.servers[&web];
        server.reals.get(&super::real(real)).map_or(0, |real| real.weight)
    };
    assert_eq!((weight(&node, "10.244.1.1:8080"), weight(&node, "10.244.1.2:8080")), (0, 1));
    assert!(node.kernel.tables.lists(SetId::Pass, &web), "the endpoint that is not known serves");
    let notes = node.engine.view(None, node.now).notes();
    assert!(notes[&web].starts_with("some of its endpoints stay"), "{notes:?}");
    tell(&mut node, &[], Update::ListIncomplete);
    node.sync();
    let tables = &node.kernel.tables;
    assert!(
        tables.addresses.contains_key(&web.address) && tables.serves(&front("tcp 10.96.0.1:81"))
    );
}

#[test]
fn what_is_read_later_comes_and_goes_from_then_on() {
    let web = of("default/web", "10.96.0.1", &["10.244.1.1", "10.244.1.2"]);
    let unread = of("default/unread", "10.96.0.2", &["10.244.1.1"]);
    let mut node = Node::new(web.iter().cloned().chain(unread));
    assert!(node.sync().is_complete());
    node.restart([]);
    tell(&mut node, &[], Update::ListIncomplete);
    assert_eq!(node.sync().changes(), 0);
    let cluster_ip = front("tcp 10.96.0.1:80");
    // One part is read by now, another is not.
    tell(&mut node, &web, Update::ListIncomplete);
    assert_eq!(node.sync().changes(), 0);
    tell(&mut node, &of("default/web", "10.96.0.1", &["10.244.1.1"]), Update::ListIncomplete);
    let changes = node.changes();
    assert!(changes.contains("> 10.244.1.2:8080  weight 1 to weight 0"), "{changes}");
    tell(&mut node, &[], Update::ListIncomplete);
    node.sync();
    assert!(!node.kernel.tables.servers.contains_key(&cluster_ip));
    assert!(node.kernel.tables.servers.contains_key(&front("tcp 10.96.0.2:80")));
}

#[test]
fn how_clients_of_a_front_are_treated_follows_what_is_read() {
    let policy = |is_local| {
        let web = service("default/web", &["10.96.0.1"], &["tcp 80"]);
        let web = web.external_ips(&["198.51.100.9"]);
        if is_local { web.external_local().applied() } else { web.applied() }
    };
    let slice = || slice_applied("default/web", &["tcp 8080"], &[endpoint("10.244.9.9")]);
    let unread = of("default/unread", "10.96.0.2", &["10.244.1.1"]);
    let mut node = Node::new([policy(true), slice()].into_iter().chain(unread));
    assert!(node.sync().is_complete());
    let shut_out = |node: &Node| {
        let external = front("tcp 198.51.100.9:80");
        node.kernel.tables.lists(SetId::NoLocalEndpoints, &external)
    };
    assert!(shut_out(&node));
    // Changed while nobody was running.
    node.restart([]);
    tell(&mut node, &[policy(false), slice()], Update::ListIncomplete);
    assert!(node.sync().is_complete());
    assert!(!shut_out(&node));
    assert!(node.kernel.tables.servers.contains_key(&front("tcp 10.96.0.2:80")));
}

/// A node that was restarted when it served these, of which only some can be read now.
fn restarted_with(all: impl IntoIterator<Item = Update>, read: &[Update]) -> Node {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses.insert(ip("192.0.2.10"));
    let mut node = Node::on(kernel, all);
    assert!(node.sync().is_complete());
    node.restart([]);
    tell(&mut node, read, Update::ListIncomplete);
    assert!(node.sync().is_complete());
    node
}

fn pods(endpoints: &[Endpoint]) -> Update {
    slice_applied("default/web", &["tcp 8080"], endpoints)
}

/// One slice of web was read; the other has an endpoint elsewhere.
fn half_read(web: &Update, read: &[Endpoint]) -> Node {
    let all = [read, &[endpoint("10.244.1.2")]].concat();
    restarted_with([web.clone(), pods(&all)], &[web.clone(), pods(read)])
}

fn external_web() -> ServiceBuilder {
    let web = service("default/web", &["10.96.0.1"], &["tcp 80:30080"]);
    web.external_ips(&["198.51.100.9"]).load_balancer_ips(&["198.51.100.8"])
}

#[test]
fn another_policy_waits_for_nothing_unread_and_leaves_its_clients_masqueraded() {
    let local = [on_node(endpoint("10.244.0.1"))];
    let mut node = half_read(&external_web().applied(), &local);
    node.tell([external_web().external_local().applied()]);
    let report = node.sync();
    assert!(report.is_complete() && report.changes() > 0, "{report}");
    let lists = |node: &Node, set, text| node.kernel.tables.lists(set, &front(text));
    let spares = |node: &Node| {
        let entries = &node.kernel.tables.entries;
        !lists(node, SetId::ExternalIp, "tcp 198.51.100.9:80")
            || lists(node, SetId::LoadBalancerLocal, "tcp 198.51.100.8:80")
            || entries.iter().any(|entry| entry.set == SetId::NodePortLocalTcp)
    };
    assert!(!spares(&node), "an answer of 10.244.1.2 would get lost");
    // It turns out to be there no longer: all is as the policy asks.
    let whole = [external_web().external_local().applied(), pods(&local)];
    tell(&mut node, &whole, Update::ListDone);
    node.sync();
    assert!(spares(&node) && lists(&node, SetId::ExternalIpLocal, "tcp 198.51.100.9:80"));
    assert!(!lists(&node, SetId::ExternalIp, "tcp 198.51.100.9:80"));
}

/// What of the sets says that a front is open.
fn is_open(node: &Node, text: &str) -> bool {
    node.kernel.tables.lists(SetId::Pass, &front(text))
}

const EXTERNAL: [&str; 3] = ["tcp 198.51.100.9:80", "tcp 198.51.100.8:80", "tcp 192.0.2.10:30080"];

/// The front took no connections when the daemon ended, its last endpoint drained.
#[test]
fn a_front_opens_for_what_is_read_next_to_what_drains_unread() {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses.insert(ip("192.0.2.10"));
    let mut node = Node::on(kernel, [external_web().applied(), pods(&[endpoint("10.244.1.2")])]);
    node.sync();
    for key in node.kernel.tables.servers.keys().copied().collect::<Vec<_>>() {
        let real = (key, real("10.244.1.2:8080"));
        node.kernel.connections.insert(real, Connections { active: 1, inactive: 0 });
    }
    node.tell([pods(&[])]);
    node.sync();
    assert!(EXTERNAL.iter().all(|front| !is_open(&node, front)));
    node.restart([]);
    let local = pods(&[on_node(endpoint("10.244.0.1"))]);
    let known = [external_web().external_local().applied(), local];
    tell(&mut node, &known, Update::ListIncomplete);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert!(EXTERNAL.iter().all(|front| is_open(&node, front)));
}

#[test]
fn a_node_port_opens_at_another_address_next_to_what_is_unread() {
    let local = [on_node(endpoint("10.244.0.1"))];
    let mut node = half_read(&external_web().applied(), &local);
    node.tell([external_web().external_local().applied()]);
    node.sync();
    node.kernel.host.addresses.insert(ip("192.0.2.11"));
    node.engine.note_host_changed(node.now);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert!(is_open(&node, "tcp 192.0.2.11:30080"));
}

/// As after kube-proxy, or after somebody has flushed them.
#[test]
fn rules_come_back_next_to_what_is_unread() {
    let local = [on_node(endpoint("10.244.0.1"))];
    let all = [external_web().applied(), pods(&[local[0].clone(), endpoint("10.244.1.2")])];
    let mut kernel = FakeKernel::default();
    kernel.host.addresses.insert(ip("192.0.2.10"));
    let mut node = Node::on(kernel, all);
    node.sync();
    node.kernel.tables.rulesets.clear();
    node.kernel.tables.entries.retain(|entry| entry.set != SetId::Pass);
    node.restart([]);
    let other = of("default/other", "10.96.0.3", &["10.244.1.3"]);
    let known = [external_web().external_local().applied(), pods(&local)];
    let known: Vec<Update> = known.into_iter().chain(other).collect();
    tell(&mut node, &known, Update::ListIncomplete);
    let report = node.sync();
    assert!(report.is_complete(), "{report}");
    assert!(EXTERNAL.iter().all(|front| is_open(&node, front)));
    assert!(is_open(&node, "tcp 10.96.0.3:80"));
}

#[test]
fn clients_are_let_in_to_the_first_local_endpoint_whatever_is_unread() {
    let web = external_web().external_local().applied();
    let mut node = half_read(&web, &[endpoint("10.244.1.1")]);
    let external = front("tcp 198.51.100.9:80");
    assert!(node.kernel.tables.lists(SetId::NoLocalEndpoints, &external));
    node.tell([pods(&[endpoint("10.244.1.1"), on_node(endpoint("10.244.0.1"))])]);
    assert!(node.sync().is_complete());
    assert!(!node.kernel.tables.lists(SetId::NoLocalEndpoints, &external));
    // None of those that are unread is on this node.
    node.tell([pods(&[endpoint("10.244.1.1")])]);
    assert!(node.sync().is_complete());
    assert!(node.kernel.tables.lists(SetId::NoLocalEndpoints, &external));
}

#[test]
fn another_scheduler_waits_for_nothing_unread() {
    let web = |scheduler| {
        service("default/web", &["10.96.0.1"], &["tcp 80"])
            .scheduling(Some(scheduler), &[])
            .applied()
    };
    let mut node = half_read(&web("rr"), &[endpoint("10.244.1.1")]);
    node.tell([web("wlc")]);
    assert!(node.sync().is_complete());
    let server = &node.kernel.tables.servers[&front("tcp 10.96.0.1:80")];
    assert_eq!((&*server.config.scheduler, server.reals.len()), ("wlc", 2));
}

#[test]
fn a_front_that_was_read_goes_with_its_unread_endpoints() {
    for read in [&[][..], &[endpoint("10.244.1.1")]] {
        let mut node = half_read(&web(), read);
        node.tell([Update::Deleted(Kind::Service, name("default/web"))]);
        let report = node.sync();
        assert!(report.is_complete(), "{report}");
        let tables = &node.kernel.tables;
        assert!(tables.servers.is_empty() && tables.addresses.is_empty());
        assert!(!tables.lists(SetId::Pass, &front("tcp 10.96.0.1:80")));
    }
}

#[test]
fn what_is_read_drains_next_to_what_is_not() {
    let mut node = half_read(&web(), &[endpoint("10.244.1.1"), endpoint("10.244.1.3")]);
    let key = (front("tcp 10.96.0.1:80"), real("10.244.1.3:8080"));
    node.kernel.connections.insert(key, Connections { active: 1, inactive: 0 });
    node.tell([pods(&[endpoint("10.244.1.1")])]);
    assert_eq!(node.sync().drains, 1);
    node.wait(9);
    assert_eq!(node.changes(), "");
    node.wait(1);
    assert_eq!(node.changes(), "reals     - tcp 10.96.0.1:80 > 10.244.1.3:8080\n");
    assert_eq!(node.kernel.tables.servers[&key.0].reals.len(), 2);
}

#[test]
fn how_a_front_treated_its_clients_goes_when_it_is_read() {
    let before = external_web().external_local().source_ranges(&["203.0.113.0/24"]).applied();
    let after = external_web().applied();
    let slice = || pods(&[endpoint("10.244.9.9")]);
    let mut node = restarted_with([before, slice()], &[]);
    node.tell([after.clone(), slice()]);
    assert!(node.sync().is_complete());
    // The endpoint may be one of an unread Service, too, and ask for itself.
    let entries = |node: &Node| -> Vec<Entry> {
        let entries = node.kernel.tables.entries.iter();
        entries.filter(|entry| entry.set != SetId::LoopBack).collect()
    };
    let read = entries(&node);
    tell(&mut node, &[after, slice()], Update::ListDone);
    node.sync();
    assert_eq!(read, entries(&node));
}

#[test]
fn load_balancers_are_told_of_local_endpoints_that_are_unread() {
    let web = external_web().external_local().health_check_port(31000).applied();
    let [one, two] = ["10.244.0.1", "10.244.0.2"].map(|at| on_node(endpoint(at)));
    let all = [web.clone(), pods(&[one.clone(), two.clone()])];
    let local = |node: &Node| {
        let checks = node.engine.state().0.health_checks();
        checks[&name("default/web")].local_endpoints
    };
    for read in [vec![web.clone()], vec![web.clone(), pods(from_ref(&one))]] {
        let mut node = restarted_with(all.clone(), &read);
        assert_eq!(local(&node), 2, "both serve");
        node.tell([pods(from_ref(&two))]);
        node.sync();
        assert_eq!(local(&node), 3 - read.len(), "the other is unread, or gone");
        tell(&mut node, from_ref(&web), Update::ListDone);
        node.sync();
        assert_eq!(local(&node), 0);
    }
    let elsewhere = [web.clone(), pods(&[endpoint("10.244.1.1")])];
    assert_eq!(local(&restarted_with(elsewhere, from_ref(&web))), 0);
}

#[test]
fn load_balancers_are_told_of_an_endpoint_as_it_is_read_at_once() {
    let web = external_web().external_local().health_check_port(31000).applied();
    let [one, two] = ["10.244.0.1", "10.244.0.2"].map(|at| on_node(endpoint(at)));
    let elsewhere = endpoint("10.244.0.1");
    let terminating = Endpoint { ready: false, terminating: true, ..one.clone() };
    let local = |node: &Node| node.engine.state().0.health_checks()[&name("default/web")];
    for (read, expected) in
        [(vec![terminating], 0), (vec![elsewhere.clone()], 0), (vec![elsewhere, two.clone()], 1)]
    {
        let all = [web.clone(), pods(&[one.clone(), two.clone()][..read.len()])];
        let mut node = restarted_with(all, from_ref(&web));
        assert_eq!(local(&node).local_endpoints, read.len(), "they serve, and are unread");
        node.tell([pods(&read)]);
        node.sync();
        assert_eq!(local(&node).local_endpoints, expected, "{read:?}");
    }
}

/// Nothing is kept of what was unread but the kernel itself.
#[test]
fn what_is_unread_serves_after_a_crash_at_any_moment() {
    let web = of("default/web", "10.96.0.1", &["10.244.1.1", "10.244.1.2"]);
    let fewer = of("default/web", "10.96.0.1", &["10.244.1.2"]);
    let unread = of("default/unread", "10.96.0.2", &["10.244.1.1"]);
    let serves = |node: &Node, front: &str| {
        let (front, tables) = (super::front(front), &node.kernel.tables);
        let is_open = tables.serves(&front) && tables.lists(SetId::Pass, &front);
        is_open && tables.addresses.contains_key(&front.address)
    };
    for (after, stays) in [(&fewer[..], true), (&[], false)] {
        for operations in 0.. {
            let mut node = restarted(&web);
            tell(&mut node, after, Update::ListIncomplete);
            node.kernel.dies_after = Some(operations);
            node.sync();
            assert!(serves(&node, "tcp 10.96.0.2:80"), "killed after {operations}");
            assert!(!stays || serves(&node, "tcp 10.96.0.1:80"), "killed after {operations}");
            let is_over = node.kernel.dies_after.take() > Some(0);
            node.restart([]);
            tell(&mut node, after, Update::ListIncomplete);
            node.sync();
            assert!(serves(&node, "tcp 10.96.0.2:80"), "started after {operations}");
            assert!(!stays || serves(&node, "tcp 10.96.0.1:80"), "started after {operations}");
            // Once all is read, nothing is left of what the crash kept from going.
            let whole: Vec<_> = after.iter().chain(&unread).cloned().collect();
            tell(&mut node, &whole, Update::ListDone);
            node.sync();
            node.wait(60);
            node.sync();
            let mut fresh = Node::new(whole);
            fresh.sync();
            assert_eq!(node.kernel.tables, fresh.kernel.tables, "after {operations}");
            if is_over {
                break;
            }
        }
    }
}
