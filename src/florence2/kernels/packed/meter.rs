//! How much of a layer's product the rounding to int8 costs, as far as the layer has been used.

use std::sync::atomic::{AtomicU64, Ordering};

use super::rows::Rows;

/// What one is in the sum of squares.
const ONE: f32 = (1u64 << 40) as f32;

/// The relative errors of one layer.
#[derive(Debug)]
pub struct QuantisationMeter {
    /// `e_w`.
    weights: f32,
    /// Squares of the rows' errors. Their sum is one of integers: floats would add up to something else
    /// in another order, and with it for another number of threads.
    sum: AtomicU64,
    rows: AtomicU64,
}

impl QuantisationMeter {
    pub(super) fn new(weights: f32) -> Self {
        Self {
            weights,
            sum: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    /// Looks at activations that the layer is about to multiply.
    pub(super) fn record(&self, rows: &Rows<'_>) {
        let (mut sum, mut count) = (0, 0);
        for square in rows.squared_errors() {
            sum += (square * ONE) as u64;
            count += 1;
        }
        self.sum.fetch_add(sum, Ordering::Relaxed);
        self.rows.fetch_add(count, Ordering::Relaxed);
    }

    /// The relative error of the weights, `e_w = ‖W − Ŵ‖ / ‖W‖`.
    pub fn weights(&self) -> f32 {
        self.weights
    }

    /// The root mean square of the relative errors to be expected of the rows so far, `e_a`; 0 before
    /// the first row. A mean as `e_w` is one: a few odd rows of a picture are a small part of a product.
    pub fn activations(&self) -> f32 {
        let rows = self.rows.load(Ordering::Relaxed).max(1);
        let sum = self.sum.load(Ordering::Relaxed) as f64;
        (sum / f64::from(ONE) / rows as f64).sqrt() as f32
    }

    /// The relative error of the product, whose two parts are independent: `√(e_w² + e_a²)`.
    pub fn error(&self) -> f32 {
        self.weights.hypot(self.activations())
    }
}
