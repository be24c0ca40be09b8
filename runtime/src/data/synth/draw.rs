//! One drawn image: an object of a shape and a texture before a background.

use super::super::random::Stream;

/// What an object can look like from outside. Its coordinates have the object's centre at 0 and fit the unit circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Square,
    Triangle,
    Star,
    Cross,
    Ring,
    Bar,
    Crescent,
}

/// How it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texture {
    Solid,
    Stripes,
    Checker,
    Dots,
}

pub(super) const SHAPES: [(Shape, &str); 8] = [
    (Shape::Disc, "disc"),
    (Shape::Square, "square"),
    (Shape::Triangle, "triangle"),
    (Shape::Star, "star"),
    (Shape::Cross, "cross"),
    (Shape::Ring, "ring"),
    (Shape::Bar, "bar"),
    (Shape::Crescent, "crescent"),
];

pub(super) const TEXTURES: [(Texture, &str); 4] = [
    (Texture::Solid, "solid"),
    (Texture::Stripes, "stripes"),
    (Texture::Checker, "checker"),
    (Texture::Dots, "dots"),
];

/// A shape with a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    shape: usize,
    texture: usize,
}

impl Class {
    /// Class `number` of those that are drawn: along the diagonals of shapes and textures, so that most pairs of the
    /// first classes differ in both.
    pub fn number(number: usize) -> Class {
        let shape = number % SHAPES.len();
        Class {
            shape,
            texture: (shape + number / SHAPES.len()) % TEXTURES.len(),
        }
    }

    /// The name of its folder.
    pub fn name(self) -> String {
        format!("{}-{}", SHAPES[self.shape].1, TEXTURES[self.texture].1)
    }
}

/// Random numbers, one after another.
pub(super) struct Draws {
    stream: Stream,
    next: u64,
}

impl Draws {
    pub fn new(stream: Stream) -> Draws {
        Draws { stream, next: 0 }
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.next += 1;
        low + (high - low) * self.stream.uniform(self.next - 1)
    }

    fn normal(&mut self) -> f64 {
        self.next += 2;
        self.stream.normal(self.next - 2)
    }

    fn color(&mut self) -> [f64; 3] {
        [(); 3].map(|()| self.between(0.05, 0.95))
    }
}

/// How far apart the colours of one image are at least: a quarter of the way from black to white.
const CONTRAST: f64 = 0.43;
/// Points a pixel's side is sampled at, against jagged edges.
const SUBPIXELS: usize = 3;

/// Where an object is in its image, whose sides run from 0 to 1.
struct Placement {
    centre: [f64; 2],
    radius: f64,
    sine: f64,
    cosine: f64,
    /// Of the texture, in the object's coordinates.
    phase: [f64; 2],
}

/// An image of a class: `[size, size, 3]` bytes.
pub(super) fn draw(class: Class, size: usize, mut draws: Draws) -> Vec<u8> {
    let placement = Placement::random(&mut draws);
    let [background, light, dark] = contrasting(&mut draws);
    let angle = draws.between(0.0, std::f64::consts::TAU);
    let slope = draws.between(0.0, 0.5);
    let noise = draws.between(0.01, 0.04);
    let (shape, texture) = (SHAPES[class.shape].0, TEXTURES[class.texture].0);
    let step = 1.0 / (size * SUBPIXELS) as f64;
    let mut pixels = Vec::with_capacity(size * size * 3);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 3];
            for sub in 0..SUBPIXELS * SUBPIXELS {
                let [sub_y, sub_x] = [sub / SUBPIXELS, sub % SUBPIXELS];
                let at = |pixel: usize, sub: usize| ((pixel * SUBPIXELS + sub) as f64 + 0.5) * step;
                let [u, v] = placement.of_object(at(x, sub_x), at(y, sub_y));
                let color = if !shape.holds(u, v) {
                    background
                } else if texture.is_light(u + placement.phase[0], v + placement.phase[1]) {
                    light
                } else {
                    dark
                };
                sum.iter_mut().zip(color).for_each(|(sum, part)| *sum += part);
            }
            let [across, down] = [x, y].map(|pixel| (pixel as f64 + 0.5) / size as f64 - 0.5);
            let lit = 1.0 + slope * (across * angle.cos() + down * angle.sin());
            for sum in sum {
                let value = sum / (SUBPIXELS * SUBPIXELS) as f64 * lit + noise * draws.normal();
                pixels.push((value * 255.0).round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    pixels
}

impl Placement {
    /// Anywhere where the whole object is seen, 60 to 90 % of the image across.
    fn random(draws: &mut Draws) -> Placement {
        let radius = draws.between(0.3, 0.45);
        let centre = [(); 2].map(|()| draws.between(radius, 1.0 - radius));
        let (sine, cosine) = draws.between(0.0, std::f64::consts::TAU).sin_cos();
        let phase = [(); 2].map(|()| draws.between(0.0, 4.0));
        Placement {
            centre,
            radius,
            sine,
            cosine,
            phase,
        }
    }

    /// A place of the image in the object's coordinates.
    fn of_object(&self, x: f64, y: f64) -> [f64; 2] {
        let [x, y] = [
            (x - self.centre[0]) / self.radius,
            (y - self.centre[1]) / self.radius,
        ];
        [self.cosine * x + self.sine * y, self.cosine * y - self.sine * x]
    }
}

/// Three random colours that can be told apart.
fn contrasting(draws: &mut Draws) -> [[f64; 3]; 3] {
    let apart = |a: [f64; 3], b: [f64; 3]| {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() >= CONTRAST * CONTRAST
    };
    loop {
        // About one draw in four is kept.
        let [a, b, c] = [(); 3].map(|()| draws.color());
        if apart(a, b) && apart(b, c) && apart(a, c) {
            return [a, b, c];
        }
    }
}

impl Shape {
    fn holds(self, u: f64, v: f64) -> bool {
        let radius = u.hypot(v);
        let within = |width: f64, height: f64| u.abs() <= width && v.abs() <= height;
        match self {
            Shape::Disc => radius <= 0.95,
            Shape::Square => within(0.7, 0.7),
            Shape::Triangle => {
                let half = 3f64.sqrt() / 2.0;
                v <= 0.5 && half * u - 0.5 * v <= 0.5 && -half * u - 0.5 * v <= 0.5
            }
            Shape::Star => in_star(u, v),
            Shape::Cross => within(0.95, 0.3) || within(0.3, 0.95),
            Shape::Ring => (0.5..=0.95).contains(&radius),
            Shape::Bar => within(0.92, 0.36),
            Shape::Crescent => radius <= 0.95 && (u - 0.5).hypot(v) > 0.75,
        }
    }
}

/// Five points on the unit circle, and between them five on a smaller one.
fn in_star(u: f64, v: f64) -> bool {
    const INNER: f64 = 0.42;
    let tenth = std::f64::consts::PI / 5.0;
    // Folded into the tenth between a point (at angle 0) and the notch beside it.
    let angle = v.atan2(u).rem_euclid(2.0 * tenth);
    let (sine, cosine) = angle.min(2.0 * tenth - angle).sin_cos();
    let [x, y] = [u.hypot(v) * cosine, u.hypot(v) * sine];
    let notch = [INNER * tenth.cos(), INNER * tenth.sin()];
    // On the centre's side of the line from the point (1, 0) to the notch.
    (1.0 - x) * notch[1] - y * (1.0 - notch[0]) >= 0.0
}

impl Texture {
    fn is_light(self, u: f64, v: f64) -> bool {
        let odd = |value: f64, cell: f64| (value / cell).floor().rem_euclid(2.0) == 1.0;
        match self {
            Texture::Solid => true,
            Texture::Stripes => odd(u, 0.36),
            Texture::Checker => odd(u, 0.46) != odd(v, 0.46),
            Texture::Dots => {
                let off = |value: f64| value.rem_euclid(0.62) - 0.31;
                off(u).hypot(off(v)) > 0.2
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn classes_differ() {
        let names: BTreeSet<String> = (0..32).map(|number| Class::number(number).name()).collect();
        assert_eq!(names.len(), SHAPES.len() * TEXTURES.len());
        assert_eq!(Class::number(0).name(), "disc-solid");
    }

    #[test]
    fn shapes_fit_the_unit_circle_and_their_areas_are_right() {
        const STEPS: i32 = 400;
        let triangle = 3.0 * 3f64.sqrt() / 4.0;
        let star = 10.0 * 0.5 * 0.42 * (std::f64::consts::PI / 5.0).sin();
        for (shape, expected) in [
            (Shape::Disc, std::f64::consts::PI * 0.95 * 0.95),
            (Shape::Square, 1.96),
            (Shape::Triangle, triangle),
            (Shape::Star, star),
            (Shape::Cross, 2.0 * 1.9 * 0.6 - 0.36),
            (Shape::Ring, std::f64::consts::PI * (0.95 * 0.95 - 0.25)),
            (Shape::Bar, 1.84 * 0.72),
        ] {
            let mut inside = 0;
            for i in -STEPS..STEPS {
                for j in -STEPS..STEPS {
                    let [u, v] = [i, j].map(|k| (f64::from(k) + 0.5) / f64::from(STEPS));
                    if shape.holds(u, v) {
                        inside += 1;
                        assert!(u.hypot(v) < 1.01, "{shape:?} at {u} {v}");
                    }
                }
            }
            let area = f64::from(inside) / f64::from(STEPS * STEPS);
            assert!(
                (area - expected).abs() < 0.01,
                "{shape:?}: {area} is not {expected}"
            );
        }
    }

    #[test]
    fn textures_have_as_much_of_both_colours() {
        for (texture, _) in &TEXTURES[1..] {
            let light = (0..100_000)
                .filter(|i| texture.is_light(f64::from(i % 317) * 0.0391, f64::from(i / 317) * 0.0391))
                .count();
            assert!((40_000..=70_000).contains(&light), "{texture:?}: {light}");
        }
    }
}
