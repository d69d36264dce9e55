//! The flags that decide rows, one per line.

use kube_ipvs_proxy::config::{
    Conntrack, DetectLocal, DrainTimeouts, IpvsTimeouts, NodePortAddresses, Policy, VipBinding,
};
use kube_ipvs_proxy::model::net::{Family, PerFamily};
use kube_ipvs_proxy::testing::objects::NODE;

/// The policy of the flags in the text.
pub fn policy(text: &str) -> Policy {
    let mut policy = Policy {
        node_name: NODE.into(),
        scheduler: "rr".into(),
        masquerade_all: false,
        masquerade_bit: 14,
        detect_local: DetectLocal::ClusterCidr(PerFamily::default()),
        service_cidrs: Vec::new(),
        node_port_addresses: NodePortAddresses::All,
        strict_arp: false,
        excluded: Vec::new(),
        ipvs_timeouts: IpvsTimeouts::default(),
        drain_timeouts: DrainTimeouts::default(),
        removes_leftovers: false,
        ipvs_estimation: false,
        conntrack: Conntrack::default(),
        vip_binding: VipBinding::Address,
    };
    for line in text.lines() {
        let (flag, value) = line.split_once('=').unwrap_or((line, "true"));
        match flag {
            "--ipvs-scheduler" => policy.scheduler = value.into(),
            "--masquerade-all" => policy.masquerade_all = value == "true",
            "--cluster-cidr" => policy.detect_local = cluster_cidr(value),
            "--detect-local-mode" if value == "NodeCIDR" => {
                policy.detect_local = DetectLocal::NodeCidr;
            }
            // The next line names the interface.
            "--detect-local-mode" => {}
            "--pod-bridge-interface" => {
                policy.detect_local = DetectLocal::BridgeInterface(value.to_string());
            }
            "--pod-interface-name-prefix" => {
                policy.detect_local = DetectLocal::InterfaceNamePrefix(value.to_string());
            }
            _ => panic!("unknown flag {line:?}"),
        }
    }
    policy
}

fn cluster_cidr(value: &str) -> DetectLocal {
    let mut cidrs = PerFamily::default();
    for cidr in value.split(',').map(|text| text.parse::<ipnet::IpNet>().expect("a CIDR")) {
        *cidrs.get_mut(Family::of(cidr.addr())) = Some(cidr);
    }
    DetectLocal::ClusterCidr(cidrs)
}
