use super::*;
use crate::florence2::kernels::test_tensors::random;

fn values(count: usize, seed: u64) -> Vec<f32> {
    random(&[count], seed).to_vec1().unwrap()
}

/// `x · Wᵀ + b` in f64, from the values that the format holds.
fn naive(rows: &Rows<'_>, weight: &[f32], bias: &[f32], outputs: usize, inputs: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in 0..rows.count {
        for output in 0..outputs {
            let sum: f64 = (0..inputs)
                .map(|input| {
                    f64::from(rows.value(row, input)) * f64::from(weight[output * inputs + input])
                })
                .sum();
            y.push(sum + bias.get(output).map_or(0.0, |b| f64::from(*b)));
        }
    }
    y
}

/// What the format makes of the weights.
fn rounded(format: Format, weight: &[f32], inputs: usize) -> Vec<f32> {
    let round = |row: &[f32]| -> Vec<f32> {
        let largest = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let (scale, inverse) = (largest / 127.0, 127.0 / largest);
        row.iter()
            .map(|w| match format {
                Format::F32 => *w,
                Format::Bf16 => half::bf16::from_f32(*w).to_f32(),
                Format::Int8 => (w * inverse).round_ties_even() * scale,
            })
            .collect()
    };
    // Every block of a row has its own scale.
    let rows = weight.chunks_exact(inputs);
    rows.flat_map(|row| row.chunks(format.block()))
        .flat_map(round)
        .collect()
}

#[test]
fn every_format_and_instruction_set_agrees_with_the_naive_product() {
    for set in InstructionSet::available() {
        for format in [Format::F32, Format::Bf16, Format::Int8] {
            for (count, outputs, inputs) in [
                (1, 1, 1),
                (3, 70, 33),
                (6, 64, 1030),
                (17, 130, 147),
                (2, 5, 2051),
            ] {
                let (x, weight, bias) = (
                    values(count * inputs, 1),
                    values(outputs * inputs, 2),
                    values(outputs, 3),
                );
                let linear = PackedLinear::for_set(set, format, &weight, &bias, outputs, inputs);
                let mut buffer = RowBuffer::default();
                let rows = buffer.convert(format, &x, count, inputs, inputs);
                let expected = naive(
                    &rows,
                    &rounded(format, &weight, inputs),
                    &bias,
                    outputs,
                    inputs,
                );
                let mut y = vec![7.0; count * outputs];
                linear.apply(&rows, &mut y, outputs, false);
                let mut twice = y.clone();
                linear.apply_parallel(&rows, &mut twice, outputs, true);
                let largest = expected.iter().fold(0.0f64, |most, y| most.max(y.abs()));
                for (at, expected) in expected.iter().enumerate() {
                    let what = format!("{set:?} {format:?} {count} × {outputs} × {inputs} at {at}");
                    let error = |y: f32, e: f64| (f64::from(y) - e).abs() / largest;
                    assert!(
                        error(y[at], *expected) < 3e-6,
                        "{what}: {} for {expected}",
                        y[at]
                    );
                    assert!(error(twice[at], 2.0 * expected) < 6e-6, "{what}, added");
                }
            }
        }
    }
}

#[test]
fn bytes_at_the_ends_of_their_range_are_summed_exactly() {
    // Every weight and activation is ±1, and so ±127 as a byte; 40 outputs, of which each has another
    // part of its inputs with the activations' sign, so that the sums reach both ends.
    let (count, outputs, inputs) = (7, 40, 1024);
    let sign = |is_minus: bool| if is_minus { -1.0 } else { 1.0 };
    let x: Vec<f32> = (0..count * inputs).map(|i| sign(i % 3 == 0)).collect();
    let weight: Vec<f32> = (0..outputs * inputs)
        .map(|i| {
            sign((i % inputs) % 3 == 0) * sign(i % inputs < i / inputs * inputs / (outputs - 1))
        })
        .collect();
    for set in InstructionSet::available() {
        let linear = PackedLinear::for_set(set, Format::Int8, &weight, &[], outputs, inputs);
        let mut buffer = RowBuffer::default();
        let rows = buffer.convert(Format::Int8, &x, count, inputs, inputs);
        let mut y = vec![0.0; count * outputs];
        linear.apply(&rows, &mut y, outputs, false);
        for (at, y) in y.iter().enumerate() {
            let (x, weight) = (
                &x[at / outputs * inputs..],
                &weight[at % outputs * inputs..],
            );
            let products = x.iter().zip(weight).take(inputs).map(|(x, w)| x * w);
            let expected: f32 = products.sum();
            assert!(
                (y - expected).abs() < 1e-3,
                "{set:?} at {at}: {y} for {expected}"
            );
        }
    }
}

#[test]
fn parts_of_a_product_add_up_to_the_whole() {
    for format in [Format::F32, Format::Bf16, Format::Int8] {
        let (count, outputs, inputs) = (9, 192, 2048 + 100);
        let (x, weight, bias) = (
            values(count * inputs, 1),
            values(outputs * inputs, 2),
            values(outputs, 3),
        );
        let linear = PackedLinear::new(format, &weight, &bias, outputs, inputs);
        let mut buffer = RowBuffer::default();
        let mut whole = vec![0.0; count * outputs];
        linear.apply(
            &buffer.convert(format, &x, count, inputs, inputs),
            &mut whole,
            outputs,
            false,
        );
        let mut parts = vec![0.0; count * outputs];
        for (first, last) in [(0, 1024), (1024, inputs)] {
            let rows = buffer.convert(format, &x[first..], count, last - first, inputs);
            for out in [0..64, 64..outputs] {
                let to = &mut parts[out.start..];
                linear.apply_part(&rows, out, first..last, to, outputs, first > 0);
            }
        }
        assert_eq!(whole, parts, "{format:?}");
    }
}

#[test]
fn strided_products_agree_with_the_naive_ones() {
    for (rows, inputs, columns) in [
        (1, 1, 1),
        (13, 32, 144),
        (7, 5, 16),
        (144, 9, 32),
        (3, 64, 31),
    ] {
        let (a, b) = (values(rows * inputs, 4), values(inputs * columns, 5));
        let size = Size {
            rows,
            inputs,
            columns,
        };
        // The left side column-major: its inputs are `rows` apart.
        let left = Left {
            values: &a,
            row_stride: 1,
            input_stride: rows,
        };
        let right = Columns {
            values: &b,
            stride: columns,
        };
        let mut out = vec![1.0; rows * columns];
        product(size, left, right, &mut out, columns, true);
        for row in 0..rows {
            for column in 0..columns {
                let sum: f32 = (0..inputs)
                    .map(|k| a[k * rows + row] * b[k * columns + column])
                    .sum();
                assert!((out[row * columns + column] - sum - 1.0).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn parts_cover_everything_once() {
    for (len, unit) in [(0, 4), (1, 4), (64, 64), (130, 64), (1000, 16)] {
        let seen = std::sync::Mutex::new(vec![0; len]);
        for_each_part(len, unit, |part| {
            assert!(part.start.is_multiple_of(unit));
            let mut seen = seen.lock().unwrap();
            part.for_each(|at| seen[at] += 1);
        });
        assert!(
            seen.into_inner().unwrap().iter().all(|count| *count == 1),
            "{len} {unit}"
        );
    }
}

/// The error of one row, or nothing.
fn error_of_row(x: &[f32]) -> Option<f32> {
    let mut buffer = RowBuffer::default();
    let rows = buffer.convert(Format::Int8, x, 1, x.len(), x.len());
    rows.squared_errors().next().map(f32::sqrt)
}

#[test]
fn the_expected_error_of_a_row_is_that_of_its_rounding() {
    let x = values(2048, 1);
    let mut buffer = RowBuffer::default();
    let rows = buffer.convert(Format::Int8, &x, 1, x.len(), x.len());
    let square = |x: f32| f64::from(x).powi(2);
    let lost: f64 = (0..x.len()).map(|i| square(x[i] - rows.value(0, i))).sum();
    let whole: f64 = x.iter().map(|x| square(*x)).sum();
    let (expected, found) = (error_of_row(&x).unwrap(), (lost / whole).sqrt() as f32);
    assert!(
        (expected / found - 1.0).abs() < 0.05,
        "{expected} for {found}"
    );

    let mut outlier = x[..1024].to_vec();
    let spread = (whole / 2048.0).sqrt() as f32;
    outlier[7] = 30.0 * spread;
    let error = error_of_row(&outlier).unwrap();
    assert!((0.025..0.028).contains(&error), "{error}");

    assert_eq!(error_of_row(&[0.0; 100]), None);
    let rows = buffer.convert(Format::Bf16, &x, 1, x.len(), x.len());
    assert_eq!(rows.squared_errors().count(), 0);
}

#[test]
fn one_sided_rows_have_finer_steps_and_zeros_stay_zero() {
    let x: Vec<f32> = values(1024, 1).iter().map(|x| x.max(0.0)).collect();
    let sided = error_of_row(&x).unwrap();
    let both: Vec<f32> = values(1024, 1);
    // As many steps for half the range.
    let ratio = sided / error_of_row(&both).unwrap();
    assert!((ratio / 0.5f32.sqrt() - 1.0).abs() < 0.05, "{ratio}");
    let mut buffer = RowBuffer::default();
    for x in [x, both, vec![-3.0, 0.0, 1e-3], vec![5.0, 0.0], vec![0.0; 3]] {
        let rows = buffer.convert(Format::Int8, &x, 1, x.len(), x.len());
        let step = x.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
        for (at, x) in x.iter().enumerate() {
            let held = rows.value(0, at);
            assert!((held - x).abs() <= 0.51 * step, "{held} for {x}");
            assert!(*x != 0.0 || held == 0.0, "{held}");
        }
    }
}

/// The values of a row of int8 after rounding.
fn read_back(x: &[f32]) -> Vec<f32> {
    let mut buffer = RowBuffer::default();
    let rows = buffer.convert(Format::Int8, x, 1, x.len(), x.len());
    (0..x.len()).map(|input| rows.value(0, input)).collect()
}

#[test]
fn the_ends_of_a_block_stay_within_a_step_of_themselves() {
    // Of this pair the product with the inverse is rounded up to a half, and the exact one is below it.
    let mut row = vec![0.0; 1024];
    (row[3], row[900]) = (-1.650_853, 1.612_311_7);
    let near = |x: &[f32], back: &[f32]| {
        let step = (x.iter().fold(0.0, |a: f32, b| a.max(*b))
            - x.iter().fold(0.0, |a: f32, b| a.min(*b)))
            / 254.0;
        let mut pairs = x.iter().zip(back);
        pairs.all(|(x, back)| (x - back).abs() <= 0.51 * step)
    };
    assert!(near(&row, &read_back(&row)));
    let all = values(2 * 200_000, 77);
    for pair in all.chunks_exact(2) {
        let ends = [pair[0].min(0.0), pair[1].max(0.0), 0.0, pair[0] / 2.0];
        assert!(near(&ends, &read_back(&ends)), "{ends:?}");
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let read = read_back(&[bad; 40]);
        assert!(
            read.iter().all(|value| !value.is_finite()),
            "{bad} {read:?}"
        );
    }
    let mut row = values(40, 3);
    row[17] = f32::INFINITY;
    assert!(read_back(&row).iter().all(|value| !value.is_finite()));
}

#[test]
fn a_meter_measures_weights_and_rows_while_it_is_held() {
    let (outputs, inputs) = (130, 1030);
    let (x, weight) = (values(3 * inputs, 1), values(outputs * inputs, 2));
    let held = rounded(Format::Int8, &weight, inputs);
    let square = |x: f32| f64::from(x).powi(2);
    let lost: f64 = weight.iter().zip(&held).map(|(w, h)| square(w - h)).sum();
    let whole: f64 = weight.iter().map(|w| square(*w)).sum();
    let mut linear = PackedLinear::new(Format::Int8, &weight, &[], outputs, inputs);
    let meter = linear.meter();
    let expected = (lost / whole).sqrt() as f32;
    assert!((meter.weights() / expected - 1.0).abs() < 1e-3);
    assert_eq!(meter.activations(), 0.0);

    let mut buffer = RowBuffer::default();
    let mut out = vec![0.0; 3 * outputs];
    let rows = buffer.convert(Format::Int8, &x, 3, inputs, inputs);
    linear.apply(&rows, &mut out, outputs, false);
    let once = meter.activations();
    linear.apply_parallel(&rows, &mut out, outputs, false);
    assert_eq!(meter.activations(), once);
    let mean = rows.squared_errors().sum::<f32>() / 3.0;
    assert!((once / mean.sqrt() - 1.0).abs() < 1e-3);
    assert!((meter.error() / expected.hypot(once) - 1.0).abs() < 1e-3);

    let mut linear = PackedLinear::new(Format::Bf16, &weight, &[], outputs, inputs);
    assert_eq!(linear.meter().weights(), 0.0);
}
