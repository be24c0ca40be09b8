//! Networks of growing size, as text: compile time is measured on them.
//!
//! Sizes of layers are those of the papers' networks for images of 224 by 224 points. Means and variances of batch
//! normalisation are those of the batch.

use std::fmt::Write;

/// A text that grows by layers.
struct Net {
    text: String,
    /// The number of the next layer.
    layer: usize,
}

/// A value and its channels.
#[derive(Clone)]
struct Value {
    name: String,
    channels: usize,
}

impl Net {
    fn new(name: &str) -> (Net, Value) {
        let net = Net {
            text: format!("model {name}\nx = input() shape=[N, 3, 224, 224]\n"),
            layer: 0,
        };
        let x = Value {
            name: "x".to_string(),
            channels: 3,
        };
        (net, x)
    }

    fn op(&mut self, operation: &str, channels: usize) -> Value {
        self.layer += 1;
        let name = format!("v{}", self.layer);
        writeln!(self.text, "{name} = {operation}").expect("a String takes any text");
        Value { name, channels }
    }

    fn convolution(&mut self, x: &Value, channels: usize, kernel: usize, stride: usize) -> Value {
        let name = format!("w{}", self.layer + 1);
        writeln!(
            self.text,
            "{name} = parameter() shape=[{channels}, {}, {kernel}, {kernel}] init=normal std=0.05",
            x.channels
        )
        .expect("a String takes any text");
        let operation = format!("conv2d({}, {name}) stride={stride} pad={}", x.name, kernel / 2);
        self.op(&operation, channels)
    }

    fn normalised(&mut self, x: &Value) -> Value {
        let Value { name, channels } = x;
        writeln!(
            self.text,
            "{name}.scale = parameter() shape=[{channels}] value=1\n{name}.shift = parameter() shape=[{channels}]\n\
             {name}.mean = channel_mean({name})\n{name}.variance = channel_variance({name}, {name}.mean)"
        )
        .expect("a String takes any text");
        let operation =
            format!("batch_norm({name}, {name}.scale, {name}.shift, {name}.mean, {name}.variance)");
        self.op(&operation, *channels)
    }

    fn relu(&mut self, x: &Value) -> Value {
        self.op(&format!("relu({})", x.name), x.channels)
    }

    /// Convolution, batch normalisation and ReLU.
    fn block(&mut self, x: &Value, channels: usize, kernel: usize, stride: usize) -> Value {
        let convolved = self.convolution(x, channels, kernel, stride);
        let normalised = self.normalised(&convolved);
        self.relu(&normalised)
    }

    fn stem(&mut self, x: &Value) -> Value {
        let y = self.block(x, 64, 7, 2);
        self.op(&format!("max_pool({}) kernel=3 stride=2 pad=1", y.name), 64)
    }

    /// The sum of a branch and its shortcut, rectified.
    fn residual(&mut self, x: &Value, branch: &Value, stride: usize) -> Value {
        let shortcut = match stride == 1 && x.channels == branch.channels {
            true => x.clone(),
            false => {
                let projected = self.convolution(x, branch.channels, 1, stride);
                self.normalised(&projected)
            }
        };
        let sum = self.op(
            &format!("add({}, {})", branch.name, shortcut.name),
            branch.channels,
        );
        self.relu(&sum)
    }

    fn head(mut self, x: &Value, classes: usize) -> String {
        let channels = x.channels;
        let mean = self.op(&format!("global_avg_pool({})", x.name), channels);
        writeln!(
            self.text,
            "flat = reshape({}) shape=[N, {channels}]\nfc = parameter() shape=[{classes}, {channels}] init=normal std=0.05\n\
             y = fully_connected(flat, fc)\noutput logits = y",
            mean.name
        )
        .expect("a String takes any text");
        self.text
    }
}

/// A chain of elementwise operations on small images, and a fully connected layer.
pub fn chain(operations: usize) -> String {
    let mut text = "model chain\nx = input() shape=[N, 4, 6, 6]\n".to_string();
    let mut last = "x".to_string();
    for i in 1..=operations {
        let operation = ["relu", "tanh"][i % 2];
        writeln!(text, "v{i} = {operation}({last})").expect("a String takes any text");
        last = format!("v{i}");
    }
    writeln!(
        text,
        "f = reshape({last}) shape=[N, 144]\nfc.weight = parameter() shape=[5, 144] init=normal std=0.1\n\
         y = fully_connected(f, fc.weight)\noutput logits = y"
    )
    .expect("a String takes any text");
    text
}

/// ResNet of basic blocks: `blocks` of each of the four widths; ResNet-18 has two of each.
pub fn resnet_basic(blocks: [usize; 4]) -> String {
    let (mut net, x) = Net::new("resnet");
    let mut y = net.stem(&x);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let (channels, stride) = (64 << stage, if stage > 0 && block == 0 { 2 } else { 1 });
            let first = net.block(&y, channels, 3, stride);
            let second = net.convolution(&first, channels, 3, 1);
            let second = net.normalised(&second);
            y = net.residual(&y, &second, stride);
        }
    }
    net.head(&y, 1000)
}

/// ResNet-18.
pub fn resnet18() -> String {
    resnet_basic([2, 2, 2, 2])
}

/// ResNet of bottleneck blocks; ResNet-50 has 3, 4, 6 and 3.
pub fn resnet_bottleneck(blocks: [usize; 4]) -> String {
    let (mut net, x) = Net::new("resnet");
    let mut y = net.stem(&x);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let (channels, stride) = (64 << stage, if stage > 0 && block == 0 { 2 } else { 1 });
            let first = net.block(&y, channels, 1, 1);
            let second = net.block(&first, channels, 3, stride);
            let third = net.convolution(&second, 4 * channels, 1, 1);
            let third = net.normalised(&third);
            y = net.residual(&y, &third, stride);
        }
    }
    net.head(&y, 1000)
}

/// ResNet-50.
pub fn resnet50() -> String {
    resnet_bottleneck([3, 4, 6, 3])
}

/// DenseNet-121.
pub fn densenet121() -> String {
    const GROWTH: usize = 32;
    let (mut net, x) = Net::new("densenet");
    let mut y = net.stem(&x);
    for (stage, layers) in [6, 12, 24, 16].into_iter().enumerate() {
        if stage > 0 {
            let normalised = net.normalised(&y);
            let rectified = net.relu(&normalised);
            let halved = net.convolution(&rectified, y.channels / 2, 1, 1);
            y = net.op(
                &format!("avg_pool({}) kernel=2 stride=2", halved.name),
                halved.channels,
            );
        }
        let mut parts = vec![y.clone()];
        for _ in 0..layers {
            let normalised = net.normalised(&y);
            let rectified = net.relu(&normalised);
            let narrow = net.block(&rectified, 4 * GROWTH, 1, 1);
            parts.push(net.convolution(&narrow, GROWTH, 3, 1));
            let names: Vec<&str> = parts.iter().map(|part| &part.name[..]).collect();
            let channels = parts.iter().map(|part| part.channels).sum();
            y = net.op(&format!("concat({}) axis=1", names.join(", ")), channels);
        }
    }
    let normalised = net.normalised(&y);
    let rectified = net.relu(&normalised);
    net.head(&rectified, 1000)
}
