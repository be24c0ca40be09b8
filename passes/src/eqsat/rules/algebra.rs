//! Operations that are equal to other operations.
//!
//! A pattern binds attributes as it binds operands, `(relu ?r ?x)`; a right side that needs other attributes than those
//! bound is made by a function.

use crate::eqsat::language::{Node, TensorAnalysis, TensorEGraph, add_op, attributes, note_rule};
use egg::{Id, Pattern, Rewrite, Subst, Var};
use ir::ops::{MaxPool, MaxPoolGrad, MaxPoolIndex, Op};

/// What a rule makes of a match.
pub enum Right {
    /// An instance of a pattern.
    Pattern(&'static str),
    /// What a function adds; `None` where the rule's condition does not hold.
    Made(fn(&mut TensorEGraph, &Bound) -> Option<Id>),
}

/// A rule of algebra.
pub struct Rule {
    /// What it says.
    pub name: &'static str,
    /// The pattern it looks for.
    pub left: &'static str,
    /// What that equals.
    pub right: Right,
    /// Two programs of one interface: the rule makes the second's outputs of the first's.
    pub example: (&'static str, &'static str),
}

/// The classes that a match binds.
pub struct Bound<'a>(&'a Subst);

impl Bound<'_> {
    /// The class of a variable of the left side, as `?x`.
    pub fn get(&self, name: &str) -> Id {
        let variable: Var = name.parse().expect("variables begin with ?");
        self.0[variable]
    }
}

/// All rules of algebra.
pub const RULES: &[Rule] = &[
    Rule {
        name: "the maximum of rectified values is the rectified maximum",
        left: "(max_pool ?p (relu ?r ?x))",
        right: Right::Pattern("(relu ?r (max_pool ?p ?x))"),
        example: (
            "x = input() shape=[2, 3, 7, 7]\nr = relu(x)\ny = max_pool(r) kernel=3 stride=2\noutput y = y",
            "x = input() shape=[2, 3, 7, 7]\np = max_pool(x) kernel=3 stride=2\ny = relu(p)\noutput y = y",
        ),
    },
    Rule {
        name: "the rectified maximum is the maximum of rectified values",
        left: "(relu ?r (max_pool ?p ?x))",
        right: Right::Pattern("(max_pool ?p (relu ?r ?x))"),
        example: (
            "x = input() shape=[2, 3, 6, 7]\np = max_pool(x) kernel=2 stride=2 ceil=true\ny = relu(p)\noutput y = y",
            "x = input() shape=[2, 3, 6, 7]\nr = relu(x)\ny = max_pool(r) kernel=2 stride=2 ceil=true\noutput y = y",
        ),
    },
    // Only winners of windows have a gradient, and a winner is the pooled value.
    Rule {
        name: "a gradient through pooling needs the rectifier's mask of winners only",
        left: "(relu_grad ?m (max_pool_grad ?g ?dy (max_pool_index ?i ?y)) ?y)",
        right: Right::Made(mask_of_winners),
        example: (
            "x = input() shape=[2, 3, 7, 7]\ndy = input() shape=[2, 3, 3, 3]\ny = relu(x)\n\
             i = max_pool_index(y) kernel=3 stride=2\ng = max_pool_grad(dy, i) size=7 kernel=3 stride=2\n\
             dx = relu_grad(g, y)\noutput dx = dx",
            "x = input() shape=[2, 3, 7, 7]\ndy = input() shape=[2, 3, 3, 3]\ny = relu(x)\n\
             i = max_pool_index(y) kernel=3 stride=2\np = max_pool(y) kernel=3 stride=2\nm = relu_grad(dy, p)\n\
             dx = max_pool_grad(m, i) size=7 kernel=3 stride=2\noutput dx = dx",
        ),
    },
    // Where the winners differ nothing in the window is positive, and the mask is zero.
    Rule {
        name: "winners among rectified values are winners among the values, where the mask is not zero",
        left: "(max_pool_grad ?g (relu_grad ?m ?dy (max_pool ?p (relu ?r ?x))) (max_pool_index ?i (relu ?r ?x)))",
        right: Right::Made(winners_before_rectifier),
        example: (
            "x = input() shape=[2, 3, 7, 7]\ndy = input() shape=[2, 3, 3, 3]\ny = relu(x)\n\
             p = max_pool(y) kernel=3 stride=2\ni = max_pool_index(y) kernel=3 stride=2\nm = relu_grad(dy, p)\n\
             dx = max_pool_grad(m, i) size=7 kernel=3 stride=2\noutput dx = dx",
            "x = input() shape=[2, 3, 7, 7]\ndy = input() shape=[2, 3, 3, 3]\ny = relu(x)\n\
             p = max_pool(y) kernel=3 stride=2\ni = max_pool_index(x) kernel=3 stride=2\nm = relu_grad(dy, p)\n\
             dx = max_pool_grad(m, i) size=7 kernel=3 stride=2\noutput dx = dx",
        ),
    },
    Rule {
        name: "the rectifier goes before a reshape",
        left: "(relu ?r (reshape ?s ?x))",
        right: Right::Pattern("(reshape ?s (relu ?r ?x))"),
        example: (
            "x = input() shape=[2, 3, 4]\ns = reshape(x) shape=[2, 12]\ny = relu(s)\noutput y = y",
            "x = input() shape=[2, 3, 4]\nr = relu(x)\ny = reshape(r) shape=[2, 12]\noutput y = y",
        ),
    },
    Rule {
        name: "the rectifier goes behind a reshape",
        left: "(reshape ?s (relu ?r ?x))",
        right: Right::Pattern("(relu ?r (reshape ?s ?x))"),
        example: (
            "x = input() shape=[2, 3, 4]\nr = relu(x)\ny = reshape(r) shape=[6, 4]\noutput y = y",
            "x = input() shape=[2, 3, 4]\ns = reshape(x) shape=[6, 4]\ny = relu(s)\noutput y = y",
        ),
    },
    Rule {
        name: "rectified parts are the parts of what is rectified",
        left: "(relu ?r (slice ?s ?x))",
        right: Right::Pattern("(slice ?s (relu ?r ?x))"),
        example: (
            "x = input() shape=[2, 6]\ns = slice(x) axis=1 start=1 stop=4\ny = relu(s)\noutput y = y",
            "x = input() shape=[2, 6]\nr = relu(x)\ny = slice(r) axis=1 start=1 stop=4\noutput y = y",
        ),
    },
    Rule {
        name: "the rectifier of joined values joins rectified ones",
        left: "(relu ?r (concat ?c ?x ?y))",
        right: Right::Pattern("(concat ?c (relu ?r ?x) (relu ?r ?y))"),
        example: (
            "x = input() shape=[2, 3]\nz = input() shape=[2, 5]\nc = concat(x, z) axis=1\ny = relu(c)\noutput y = y",
            "x = input() shape=[2, 3]\nz = input() shape=[2, 5]\na = relu(x)\nb = relu(z)\ny = concat(a, b) axis=1\noutput y = y",
        ),
    },
    Rule {
        name: "a scaled sum is a sum of scaled terms",
        left: "(scale ?s (add ?a ?x ?y))",
        right: Right::Pattern("(add ?a (scale ?s ?x) (scale ?s ?y))"),
        example: (
            "x = input() shape=[2, 3]\nz = input() shape=[2, 3]\na = add(x, z)\ny = scale(a) factor=0.5\noutput y = y",
            "x = input() shape=[2, 3]\nz = input() shape=[2, 3]\na = scale(x) factor=0.5\nb = scale(z) factor=0.5\n\
             y = add(a, b)\noutput y = y",
        ),
    },
    Rule {
        name: "a scaled bias is a bias of scaled values",
        left: "(scale ?s (bias ?b ?x ?w))",
        right: Right::Pattern("(bias ?b (scale ?s ?x) (scale ?s ?w))"),
        example: (
            "x = input() shape=[2, 3]\nw = input() shape=[3]\na = bias(x, w)\ny = scale(a) factor=-2\noutput y = y",
            "x = input() shape=[2, 3]\nw = input() shape=[3]\na = scale(x) factor=-2\nb = scale(w) factor=-2\n\
             y = bias(a, b)\noutput y = y",
        ),
    },
];

/// The rules of algebra, for egg.
pub fn rewrites() -> Vec<Rewrite<Node, TensorAnalysis>> {
    RULES.iter().map(rewrite).collect()
}

/// One rule, for egg.
pub fn rewrite(rule: &Rule) -> Rewrite<Node, TensorAnalysis> {
    let pattern = |text: &str| -> Pattern<Node> {
        text.parse()
            .unwrap_or_else(|error| panic!("{}: {text}: {error}", rule.name))
    };
    let right = match rule.right {
        Right::Pattern(right) => Maker::Pattern(pattern(right)),
        Right::Made(make) => Maker::Made(make),
    };
    let noted = Noted {
        rule: rule.name,
        right,
    };
    Rewrite::new(rule.name, pattern(rule.left), noted)
        .unwrap_or_else(|error| panic!("{}: {error}", rule.name))
}

enum Maker {
    Pattern(Pattern<Node>),
    Made(fn(&mut TensorEGraph, &Bound) -> Option<Id>),
}

/// Makes the right side, and notes which rule made it.
struct Noted {
    rule: &'static str,
    right: Maker,
}

impl egg::Applier<Node, TensorAnalysis> for Noted {
    fn apply_one(
        &self,
        egraph: &mut TensorEGraph,
        class: Id,
        subst: &Subst,
        searched: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let first = egraph.nodes().len();
        let changed = match &self.right {
            Maker::Pattern(pattern) => pattern.apply_one(egraph, class, subst, searched, rule),
            Maker::Made(make) => match make(egraph, &Bound(subst)) {
                Some(made) if egraph.union_trusted(class, made, rule) => vec![class],
                _ => vec![],
            },
        };
        note_rule(egraph, first, self.rule);
        changed
    }
}

/// The attributes of a gradient of max pooling and of its index, if they are of the same windows.
fn one_pool(egraph: &TensorEGraph, bound: &Bound) -> Option<MaxPoolGrad> {
    match (
        attributes(egraph, bound.get("?g")),
        attributes(egraph, bound.get("?i")),
    ) {
        (Op::MaxPoolGrad(grad), Op::MaxPoolIndex(index)) if grad.pool == index.pool => Some(grad.clone()),
        _ => None,
    }
}

fn mask_of_winners(egraph: &mut TensorEGraph, bound: &Bound) -> Option<Id> {
    let grad = one_pool(egraph, bound)?;
    let pool = grad.pool.clone();
    let [dy, y] = ["?dy", "?y"].map(|name| bound.get(name));
    let pooled = add_op(egraph, &MaxPool { pool: pool.clone() }.into(), &[y]);
    let index = add_op(egraph, &MaxPoolIndex { pool }.into(), &[y]);
    let masked = add_op(egraph, &ir::ops::ReluGrad.into(), &[dy, pooled]);
    Some(add_op(egraph, &grad.into(), &[masked, index]))
}

fn winners_before_rectifier(egraph: &mut TensorEGraph, bound: &Bound) -> Option<Id> {
    let grad = one_pool(egraph, bound)?;
    match attributes(egraph, bound.get("?p")) {
        Op::MaxPool(MaxPool { pool }) if *pool == grad.pool => {}
        _ => return None,
    }
    let pool = grad.pool.clone();
    let [dy, x] = ["?dy", "?x"].map(|name| bound.get(name));
    let rectified = add_op(egraph, &ir::ops::Relu.into(), &[x]);
    let pooled = add_op(egraph, &MaxPool { pool: pool.clone() }.into(), &[rectified]);
    let index = add_op(egraph, &MaxPoolIndex { pool }.into(), &[x]);
    let masked = add_op(egraph, &ir::ops::ReluGrad.into(), &[dy, pooled]);
    Some(add_op(egraph, &grad.into(), &[masked, index]))
}
