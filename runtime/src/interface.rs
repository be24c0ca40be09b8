//! The interface of a classifier's plan: which tensor is the image, which are the logits, and the number of classes.

use crate::Error;
use crate::artifact::mode_name;
use crate::tensor::type_name;
use ir::DType;
use ir::plan::{Buffer, LABELS, LEARNING_RATE, LOSS, Plan, RANDOM_STATE, Role};

/// The tensors of a classifier's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The input that holds images: the one with no special meaning.
    pub image: String,
    /// One image: channels, height, width.
    pub image_shape: [usize; 3],
    /// The output with one score a class, before softmax.
    pub logits: String,
    /// The number of classes.
    pub classes: usize,
}

impl Interface {
    /// Finds the interface, or explains why the plan is not an image classifier.
    pub fn of(plan: &Plan) -> Result<Interface, Error> {
        let place = format!("{} ({})", plan.model, mode_name(plan.mode));
        let fail = |what: String| Error::input(format!("{place} is not an image classifier: {what}"));
        let special = [LABELS, LEARNING_RATE, RANDOM_STATE];
        let inputs: Vec<_> = plan
            .interface()
            .filter(|b| matches!(b.role, Role::Input { .. }) && !special.contains(&b.name.as_str()))
            .collect();
        let [image] = inputs.as_slice() else {
            let names: Vec<&str> = inputs.iter().map(|b| b.name.as_str()).collect();
            return Err(fail(format!(
                "expected one input with images and found {}: {}",
                names.len(),
                names.join(", ")
            )));
        };
        let image_shape = match image.role.shape() {
            Some(&[n, c, h, w]) if n == plan.batch && image.dtype == DType::F32 => [c, h, w],
            shape => {
                let found = type_name(image.dtype, shape.unwrap_or_default());
                return Err(fail(format!(
                    "its input {} is {found}, expected f32[N, C, H, W]",
                    image.name
                )));
            }
        };
        let scores = scores(plan);
        let [logits] = scores.as_slice() else {
            let names: Vec<&str> = scores.iter().map(|b| b.name.as_str()).collect();
            return Err(fail(format!(
                "expected one output of f32[N, classes] and found {}: {}",
                names.len(),
                names.join(", ")
            )));
        };
        let classes = logits
            .role
            .shape()
            .and_then(|shape| shape.last().copied())
            .unwrap_or_default();
        Ok(Interface {
            image: image.name.clone(),
            image_shape,
            logits: logits.name.clone(),
            classes,
        })
    }

    /// The number of classes that labels choose from, of a plan with one output of scores a sample.
    pub fn classes_of(plan: &Plan) -> Option<usize> {
        match scores(plan).as_slice() {
            [logits] => logits.role.shape().and_then(|shape| shape.last().copied()),
            _ => None,
        }
    }

    /// The number of elements of one image.
    pub fn image_elements(&self) -> usize {
        self.image_shape.iter().product()
    }
}

/// The outputs that may be logits: one row of scores a sample.
fn scores(plan: &Plan) -> Vec<&Buffer> {
    let is_scores = |shape: &[usize]| matches!(shape, [n, k] if *n == plan.batch && *k > 0);
    plan.interface()
        .filter(|b| matches!(&b.role, Role::Output { shape } if is_scores(shape)))
        .filter(|b| b.dtype == DType::F32 && b.name != LOSS && !b.name.starts_with("grad."))
        .collect()
}
