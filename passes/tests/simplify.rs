//! Each rule of simplification: a graph, and what it becomes.

use passes::simplify::simplify;

/// Checks what a graph over `x`, f32[2, 4, 3, 3], becomes; both are given without the input and the model.
fn check(from: &str, to: &str) {
    let text = |body: &str| format!("model m\nx = input() shape=[2, 4, 3, 3]\n{body}");
    let parse = |text: &str| ir::text::parse(text, "test.ir").unwrap_or_else(|e| panic!("{text}{e:?}"));
    let simplified = simplify(&parse(&text(from))).expect("the graph can be simplified");
    assert_eq!(ir::text::print(&simplified), ir::text::print(&parse(&text(to))));
    assert_eq!(
        simplify(&simplified).as_ref(),
        Ok(&simplified),
        "nothing is left to simplify"
    );
}

#[test]
fn a_scale_by_one_is_its_operand() {
    check(
        "a = scale(x) factor=1.0\ny = relu(a)\noutput y = y\n",
        "y = relu(x)\noutput y = y\n",
    );
}

#[test]
fn scales_are_joined() {
    check(
        "a = scale(x) factor=0.5\nb = scale(a) factor=0.25\nc = scale(b) factor=8.0\noutput y = c\n",
        "output y = x\n",
    );
    check(
        "a = scale(x) factor=0.5\nb = scale(a) factor=3.0\noutput a = a\noutput b = b\n",
        "a = scale(x) factor=0.5\nb = scale(x) factor=1.5\noutput a = a\noutput b = b\n",
    );
}

#[test]
fn reshapes_are_joined() {
    check(
        "a = reshape(x) shape=[2, 36]\nb = reshape(a) shape=[2, 4, 9]\noutput y = b\n",
        "b = reshape(x) shape=[2, 4, 9]\noutput y = b\n",
    );
    check(
        "a = reshape(x) shape=[2, 36]\nb = reshape(a) shape=[2, 4, 3, 3]\nc = relu(b)\noutput y = c\n",
        "c = relu(x)\noutput y = c\n",
    );
}

#[test]
fn the_rectifier_is_applied_once() {
    check(
        "a = relu(x)\nb = relu(a)\noutput y = b\n",
        "a = relu(x)\noutput y = a\n",
    );
}

#[test]
fn constants_are_folded() {
    check(
        "a = constant() shape=[2, 4, 3, 3] value=3.0\nb = scale(a) factor=0.5\nc = add(a, b)\nd = relu(c)\n\
         y = multiply(x, d)\noutput y = y\n",
        "c = constant() shape=[2, 4, 3, 3] value=4.5\ny = multiply(x, c)\noutput y = y\n",
    );
    // A frame of zeros around ones is no constant.
    let frame =
        "a = constant() shape=[2, 2] value=1.0\nb = pad(a) before=[1, 0] after=[0, 0]\noutput y = b\n";
    check(frame, frame);
}

#[test]
fn equal_nodes_are_joined_but_not_leaves_or_different_masks() {
    check(
        "a = relu(x)\nb = relu(x)\nc = tanh(a)\nd = tanh(b)\ny = add(c, d)\noutput y = y\n",
        "a = relu(x)\nc = tanh(a)\ny = add(c, c)\noutput y = y\n",
    );
    let masks = "\
state = input() shape=[2] dtype=i64
other = input() shape=[2, 4, 3, 3]
m = random_mask(state) shape=[2, 4, 3, 3] keep=0.5 value=1.0 stream=1
n = random_mask(state) shape=[2, 4, 3, 3] keep=0.5 value=1.0 stream=2
a = add(m, n)
b = add(a, other)
y = add(b, x)
output y = y
";
    check(masks, masks);
}

#[test]
fn what_nothing_needs_is_removed_but_the_interface_stays() {
    check(
        "w = parameter() shape=[4]\nunused = parameter() shape=[9]\na = relu(x)\nb = tanh(a)\n\
         c = scale(w) factor=0.5\noutput y = a\noutput again = a\nupdate w = c\n",
        "w = parameter() shape=[4]\nunused = parameter() shape=[9]\na = relu(x)\n\
         c = scale(w) factor=0.5\noutput y = a\noutput again = a\nupdate w = c\n",
    );
}
