//! The demonstration: one Service, real pods, real packets, told step by step.
//!
//! It runs the daemon on the manifests of `deploy/demo`, on this machine if its kernel has IPVS,
//! else in the machine of `tests/lab`. It ends with `demo: ok`, or says what went wrong.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output is the demonstration")]
#![allow(clippy::unwrap_used, reason = "a step that fails ends the demonstration")]
#![allow(dead_code, reason = "the world of the kernel tests offers more than is shown here")]

#[path = "../kernel/client.rs"]
mod client;
#[path = "../kernel/daemon.rs"]
mod daemon;
#[path = "../kernel/lab.rs"]
mod lab;
#[path = "../kernel/load.rs"]
mod load;
#[path = "../kernel/namespace.rs"]
mod namespace;
#[path = "../kernel/pod_server.rs"]
mod pod_server;
#[path = "../kernel/wait.rs"]
mod wait;
#[path = "../kernel/whoami.rs"]
mod whoami;
#[path = "../kernel/world.rs"]
mod world;

mod stage;

use std::process::ExitCode;
use std::time::Duration;

use load::{Amount, Load, Tally};
use stage::{FRONT, Stage, URL};
use whoami::Transport;
use world::{Place, Pod};

/// Where the manifests of the demonstration are, from the root of the package.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo");

fn main() -> ExitCode {
    if let Some(missing) = lab::missing_here() {
        return lab::run_inside("demonstration", &missing, &[MANIFESTS]);
    }
    match std::panic::catch_unwind(demonstrate) {
        Ok(()) => {
            println!("\ndemo: ok");
            ExitCode::SUCCESS
        }
        Err(_) => {
            println!("\ndemo: failed, see above");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() {
    title("A node, a client and two pods, each in a network namespace of its own");
    let stage = Stage::set();
    let [host_a, host_b, host_c] = [
        stage.world.pod("HostA", Place::Outside, 2),
        stage.world.pod("HostB", Place::Node, 3),
        stage.world.pod("HostC", Place::Node, 4),
    ];
    for pod in [&host_a, &host_b] {
        println!("{} is {}, a web server on port {}", pod.name, pod.ipv4, stage::POD_PORT);
    }
    let server_a = stage.serve(&host_a);
    let _others = [&host_b, &host_c].map(|pod| stage.serve(pod));

    title("The daemon starts on the manifests in deploy/demo");
    let daemon = stage.start_daemon();
    stage.show_kernel();

    balance_over_two(&stage);
    scale_up(&stage, &host_c);
    withdraw(&stage, &host_a, server_a);
    delete_service(&stage);
    assert!(daemon.terminate().success(), "the daemon ends cleanly");
}

fn balance_over_two(stage: &Stage) {
    title("Everybody reaches the Service by its address");
    stage.curl("the client pod", &stage.client.namespace);
    stage.curl("the node itself", &stage.world.node);
    let tally = many_requests(stage, 10_000);
    expect_shares(&tally, &["HostA", "HostB"], 0.48..=0.52);
}

fn scale_up(stage: &Stage, host_c: &Pod) {
    title("A third pod is added to the EndpointSlice");
    stage.edit(|web| {
        let added = format!("{web}  - addresses: [{}] # HostC\n    nodeName: demo\n", host_c.ipv4);
        added
    });
    stage.wait_for_real_servers(3);
    stage.show_kernel();
    let tally = many_requests(stage, 3_000);
    expect_shares(&tally, &["HostA", "HostB", "HostC"], 0.31..=0.36);
}

fn withdraw(stage: &Stage, host_a: &Pod, server_a: pod_server::PodServer) {
    title("HostA is withdrawn while clients keep asking, and stops after that");
    let forever = Amount::at_most(Duration::from_secs(120));
    let load = Load::start(&stage.client.namespace, Transport::Tcp, FRONT, forever);
    load.wait_for_answers(200);
    stage.edit(|web| {
        let slice_line =
            format!("  - addresses: [{}] # HostA\n    nodeName: node-2\n", host_a.ipv4);
        web.replace(&slice_line, "")
    });
    stage.wait_for_real_servers(2);
    println!("the daemon has withdrawn HostA; its connections may end in peace");
    load.wait_for_answers(50);
    server_a.stop();
    println!("HostA's web server is stopped");
    load.wait_for_answers(200);
    let tally = load.stop();
    show(&tally);
    assert!(tally.failures.is_empty(), "no request may fail: {:?}", tally.failures);
    stage.show_kernel();
}

fn delete_service(stage: &Stage) {
    title("The Service is deleted");
    stage.delete_service();
    stage.show_kernel();
    stage.expect_refusal("the client pod", &stage.client.namespace);
    stage.expect_refusal("the node itself", &stage.world.node);
}

fn many_requests(stage: &Stage, requests: usize) -> Tally {
    println!(
        "{requests} requests from the client pod to {URL}, each over a connection of its own:"
    );
    let amount = Amount::requests(requests);
    let tally = load::run(&stage.client.namespace, Transport::Tcp, FRONT, amount);
    show(&tally);
    assert!(tally.failures.is_empty(), "no request may fail: {:?}", tally.failures);
    tally
}

fn show(tally: &Tally) {
    for (pod, answers) in &tally.answers {
        println!("  {pod}: {answers} answers, {:.1} %", 100.0 * tally.share(pod));
    }
    println!("  failed: {}", tally.failures.len());
}

fn expect_shares(tally: &Tally, pods: &[&str], range: std::ops::RangeInclusive<f64>) {
    for pod in pods {
        assert!(range.contains(&tally.share(pod)), "{pod}'s share is outside {range:?}");
    }
}

fn title(text: &str) {
    println!("\n=== {text}");
}
