//! GELU in its exact form, x·Φ(x) with the normal distribution function Φ (Hendrycks & Gimpel,
//! arXiv:1606.08415); the tanh approximation is another function and changes answers.

use candle_core::{Result, Tensor};

use super::simd::{exp_nonpositive, fma, multiversion};

/// GELU of every element.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

multiversion! {
    /// GELU of every element, in place, on this thread.
    pub fn gelu_in_place(x: &mut [f32]) = gelu_in_place_body
}

#[inline(always)]
fn gelu_in_place_body<const FMA: bool>(x: &mut [f32]) {
    for x in x {
        *x = gelu_one::<FMA>(*x);
    }
}

/// Coefficients of the upper tail Q(a) = 1 − Φ(a) = e^(−a²/2) · (c₁t + … + c₈t⁸), t = 1/(1 + 0.3a),
/// a ≥ 0: the form of Abramowitz & Stegun 26.2.17, fitted by least squares on the relative error
/// over Chebyshev nodes for 0 ≤ a ≤ 10. Largest relative error 5.5e-8, below f32's own rounding.
const TAIL: [f32; 8] = [
    0.119_601_31,
    0.121_161_39,
    0.097_477_54,
    0.136_323_93,
    -0.067_948_87,
    0.221_509_26,
    -0.165_845_03,
    0.037_720_497,
];
const TAIL_SCALE: f32 = 0.3;

#[inline(always)]
fn gelu_one<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / fma::<FMA>(TAIL_SCALE, a, 1.0);
    let mut p = TAIL[7];
    for c in [
        TAIL[6], TAIL[5], TAIL[4], TAIL[3], TAIL[2], TAIL[1], TAIL[0],
    ] {
        p = fma::<FMA>(p, t, c);
    }
    let tail = p * t * exp_nonpositive::<FMA>(-0.5 * a * a);
    // For x < 0 the tail itself is Φ(x): no cancellation, unlike 1 + erf(x).
    let phi = if x < 0.0 { tail } else { 1.0 - tail };
    x * phi
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn agrees_with_the_exact_form_in_f64() {
        let xs: Vec<f32> = (-13_000..13_000).map(|i| i as f32 * 1e-3).collect();
        let x = Tensor::new(xs.as_slice(), &Device::Cpu).unwrap();
        let exact = gelu(&x.to_dtype(DType::F64).unwrap()).unwrap();
        let mut ours = xs;
        gelu_in_place(&mut ours);
        let ours = Tensor::new(ours, &Device::Cpu).unwrap();
        let ours = ours.to_dtype(DType::F64).unwrap();
        let worst = (ours - exact)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap();
        assert!(worst < 5e-7, "largest absolute error {worst}");
    }

    #[test]
    fn extremes_stay_finite() {
        let mut y = [-1e30f32, -100.0, 0.0, -0.0, 100.0, 1e30];
        gelu_in_place(&mut y);
        assert_eq!(y[2..], [0.0, 0.0, 100.0, 1e30]);
        assert!(y[0].abs() < 1e-6 && y[1].abs() < 1e-6, "{y:?}");
    }
}
