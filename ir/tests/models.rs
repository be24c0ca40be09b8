//! The models of `models/`, held to the papers' tables: shapes, parameters and multiply-adds of every layer.
//! Figures: shared/alexnet.md, computed from the tables of Krizhevsky et al. (2012) and from torchvision.

use ir::count::{LayerCount, layers};
use ir::{Graph, text};

fn path(name: &str) -> String {
    format!("{}/../models/{name}.ir", env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{}: {error}", path(name)))
}

fn model(name: &str) -> Graph {
    let source = source(name);
    text::parse(&source, name).unwrap_or_else(|errors| panic!("{}", text::render(&errors, &source, false)))
}

/// Compares a model with rows of layer, parameters and multiply-adds, and with their sums.
fn check_counts(name: &str, table: &[(&str, u64, u64)], total: (u64, u64)) {
    let expected: Vec<LayerCount> = table
        .iter()
        .map(|&(layer, parameters, multiply_adds)| LayerCount {
            layer: layer.into(),
            parameters,
            multiply_adds,
        })
        .collect();
    let found = layers(&model(name)).expect("the model binds to a batch of one");
    assert_eq!(found, expected, "{name}");
    assert_eq!(
        found.iter().map(|l| l.parameters).sum::<u64>(),
        total.0,
        "parameters of {name}"
    );
    assert_eq!(
        found.iter().map(|l| l.multiply_adds).sum::<u64>(),
        total.1,
        "multiply-adds of {name}"
    );
}

/// Compares the types of values with rows of name and type.
fn check_types(name: &str, table: &[(&str, &str)]) {
    let graph = model(name);
    for (value, ty) in table {
        let id = graph
            .find(value)
            .unwrap_or_else(|| panic!("{name} has no value {value}"));
        assert_eq!(graph.node(id).ty.to_string(), *ty, "{value} of {name}");
    }
}

const NAMES: [&str; 3] = ["alexnet", "alexnet-owt", "alexnet-cifar"];

#[test]
fn every_model_is_sound_in_canonical_form_and_survives_printing() {
    for name in NAMES {
        let (source, graph) = (source(name), model(name));
        assert_eq!(graph.name(), name);
        assert_eq!(ir::verify::verify(&graph), Ok(()), "{name}");
        let printed = text::print(&graph);
        assert_eq!(text::parse(&printed, name).as_ref(), Ok(&graph), "{name}");
        let formatted = text::format(&source, name).expect("the model parses");
        if std::env::var_os("BLESS").is_some() && formatted != source {
            std::fs::write(path(name), formatted).expect("a model can be written");
        } else {
            assert!(
                formatted == source,
                "models/{name}.ir is not as `alexc fmt` writes it; BLESS=1 formats it"
            );
        }
        let outputs: Vec<&str> = graph.outputs().iter().map(|output| output.0.as_str()).collect();
        assert_eq!(outputs, ["logits"], "{name}");
        let inputs = graph.select(|op| matches!(op, ir::Op::Input(_)));
        assert_eq!(
            inputs
                .iter()
                .map(|&id| graph.node(id).name.as_str())
                .collect::<Vec<_>>(),
            ["image"],
            "{name}"
        );
    }
}

#[test]
fn the_2012_network_has_the_counts_of_the_table() {
    let table = [
        ("conv1", 34_944, 105_415_200),
        ("conv2", 307_456, 223_948_800),
        ("conv3", 885_120, 149_520_384),
        ("conv4", 663_936, 112_140_288),
        ("conv5", 442_624, 74_760_192),
        ("fc6", 37_752_832, 37_748_736),
        ("fc7", 16_781_312, 16_777_216),
        ("fc8", 4_097_000, 4_096_000),
    ];
    check_counts("alexnet", &table, (60_965_224, 724_406_816));
}

#[test]
fn the_2012_network_has_the_shapes_of_the_paper() {
    let table = [
        ("conv1", "f32[N, 96, 55, 55]"),
        ("pool1", "f32[N, 96, 27, 27]"),
        ("conv2", "f32[N, 256, 27, 27]"),
        ("pool2", "f32[N, 256, 13, 13]"),
        ("conv3", "f32[N, 384, 13, 13]"),
        ("conv4", "f32[N, 384, 13, 13]"),
        ("conv5", "f32[N, 256, 13, 13]"),
        ("pool5", "f32[N, 256, 6, 6]"),
        ("fc6", "f32[N, 4096]"),
        ("fc7", "f32[N, 4096]"),
        ("fc8", "f32[N, 1000]"),
    ];
    check_types("alexnet", &table);
}

#[test]
fn the_one_tower_network_has_torchvisions_counts() {
    let table = [
        ("conv1", 23_296, 70_276_800),
        ("conv2", 307_392, 223_948_800),
        ("conv3", 663_936, 112_140_288),
        ("conv4", 884_992, 149_520_384),
        ("conv5", 590_080, 99_680_256),
        ("fc6", 37_752_832, 37_748_736),
        ("fc7", 16_781_312, 16_777_216),
        ("fc8", 4_097_000, 4_096_000),
    ];
    check_counts("alexnet-owt", &table, (61_100_840, 714_188_480));
}

#[test]
fn the_one_tower_network_has_torchvisions_shapes() {
    let table = [
        ("conv1", "f32[N, 64, 55, 55]"),
        ("pool1", "f32[N, 64, 27, 27]"),
        ("pool2", "f32[N, 192, 13, 13]"),
        ("pool5", "f32[N, 256, 6, 6]"),
        ("conv1.weight", "f32[64, 3, 11, 11]"),
        ("conv5.weight", "f32[256, 256, 3, 3]"),
        ("fc6.weight", "f32[4096, 9216]"),
        ("fc8.bias", "f32[1000]"),
        ("fc8", "f32[N, 1000]"),
    ];
    check_types("alexnet-owt", &table);
}

#[test]
fn the_small_network_costs_what_its_comment_says() {
    let multiply_adds: u64 = layers(&model("alexnet-cifar"))
        .expect("it binds")
        .iter()
        .map(|l| l.multiply_adds)
        .sum();
    assert!(
        (15_500_000..16_500_000).contains(&(2 * multiply_adds)),
        "{} FLOP",
        2 * multiply_adds
    );
}
