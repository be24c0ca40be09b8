//! Every rule of algebra on its example: it fires, and both sides mean the same on random inputs.

use crate::common::{assert_close, random};
use egg::Id;
use ir::Graph;
use ir::interpreter::{Tensor, evaluate};
use passes::eqsat::rules::algebra::{RULES, Rule, rewrite};
use passes::eqsat::{Limits, build, saturate};
use std::collections::HashMap;

fn parse(text: &str) -> Graph {
    ir::text::parse(text, "example.ir").unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The class of the only output of `goal` in the e-graph that rules made of `start`.
fn class_of(egraph: &mut passes::eqsat::language::TensorEGraph, goal: &Graph) -> Id {
    let mut classes: Vec<Id> = vec![];
    for id in goal.ids() {
        let node = goal.node(id);
        let class = match node.op.is_leaf() {
            true => egraph.add(passes::eqsat::language::Node::Leaf((&node.name[..]).into())),
            false => {
                let operands: Vec<Id> = goal.operands(id).iter().map(|o| classes[o.index()]).collect();
                passes::eqsat::language::add_op(egraph, &node.op, &operands)
            }
        };
        classes.push(class);
    }
    egraph.rebuild();
    egraph.find(classes[goal.outputs()[0].1.index()])
}

fn fires(rule: &Rule) {
    let (start, goal) = (parse(rule.example.0), parse(rule.example.1));
    let built = build::from_graph(&start);
    let root = built.classes[start.outputs()[0].1.index()];
    let mut before = built.egraph.clone();
    let known = class_of(&mut before, &goal);
    assert_ne!(
        before.find(root),
        known,
        "{}: both sides of the example are one expression",
        rule.name
    );
    let (mut egraph, phase) = saturate(built.egraph, "rule", &[rewrite(rule)], 4, &Limits::default());
    assert_eq!(phase.stopped, "saturated", "{}", rule.name);
    let found = class_of(&mut egraph, &goal);
    assert_eq!(
        egraph.find(root),
        found,
        "{} does not make its example",
        rule.name
    );
}

fn means_the_same(rule: &Rule, seed: u64) {
    let (start, goal) = (parse(rule.example.0), parse(rule.example.1));
    let mut inputs: HashMap<String, Tensor> = HashMap::new();
    for (i, id) in start.ids().enumerate() {
        let node = start.node(id);
        if node.op.is_leaf() {
            inputs.insert(
                node.name.clone(),
                random(&node.ty.extents(), seed * 31 + i as u64),
            );
        }
    }
    let name = &start.outputs()[0].0;
    let value = |graph: &Graph| {
        let values = evaluate(graph, &inputs).unwrap_or_else(|error| panic!("{}: {error}", rule.name));
        values
            .output(graph, name)
            .expect("the output has a value")
            .clone()
    };
    assert_close(&value(&start), &value(&goal), rule.name);
}

#[test]
fn every_rule_makes_its_example() {
    RULES.iter().for_each(fires);
}

#[test]
fn both_sides_of_every_rule_mean_the_same() {
    for seed in 0..20 {
        RULES.iter().for_each(|rule| means_the_same(rule, seed));
    }
}

#[test]
fn a_rule_that_is_wrong_is_found_out() {
    let wrong = Rule {
        name: "the rectifier does nothing",
        left: "(relu ?r ?x)",
        right: passes::eqsat::rules::algebra::Right::Pattern("?x"),
        example: (
            "x = input() shape=[4, 4]\ny = relu(x)\noutput y = y",
            "x = input() shape=[4, 4]\ny = scale(x) factor=1\noutput y = y",
        ),
    };
    assert!(std::panic::catch_unwind(|| means_the_same(&wrong, 1)).is_err());
}
