//! `--once`: its exit status says whether all of the folder is programmed.

use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, SOON, Service};
use crate::dump;
use crate::world::{Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![once_fails_if_anything_is_not_programmed_and_programs_the_rest]
}

fn once_fails_if_anything_is_not_programmed_and_programs_the_rest() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let manifests = Manifests::new();
    let pods = [&pod];
    manifests.put("web.yaml", &Service::new("web", 128, &pods).manifest());
    let run = || {
        let mut daemon = cluster::launch(&world, &manifests, &["--once"]);
        let status = daemon.wait_for_end(SOON);
        (status.code(), daemon.log())
    };
    let (status, log) = run();
    assert_eq!(status, Some(0), "{log}");

    manifests.put(
        "bad.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec:\n  clusterIP: 127.0.0.9\n  \
         ports: [{port: 80}]\n",
    );
    manifests.put("more.yaml", &Service { name: "more", ..Service::new("", 7, &pods) }.manifest());
    let (status, log) = run();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("  rejected: Service default/bad: "), "{log}");
    assert!(dump::has_server(&world.node, "-t 10.254.10.7:80"), "the rest is programmed\n{log}");

    manifests.put("bad.yaml", "x: : ");
    let (status, log) = run();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("bad.yaml"), "{log}");
    manifests.remove("bad.yaml");
    assert_eq!(run().0, Some(0));
}
