//! Identities of the discretisations, each against plain matrix algebra.

use nalgebra::{DMatrix, DVector};
use num_complex::Complex64;
use proptest::prelude::*;
use ssmrt_core::internals::discretize::{
    ModeBar, OscillatorStep, RealSchur, Scheme, discretize_dplr, discretize_mode, discretize_oscillator,
};
use ssmrt_core::{Disc, discretize_matrix, hippo};

fn near(x: &[f64], y: &[f64], tolerance: f64) -> bool {
    let scale = y.iter().fold(1e-300, |m: f64, v| m.max(v.abs()));
    x.len() == y.len() && x.iter().zip(y).all(|(x, y)| (x - y).abs() <= tolerance * scale)
}

fn dense(a: &[f64], n: usize) -> DMatrix<f64> {
    DMatrix::from_row_slice(n, n, a)
}

fn complex(scale: f64) -> impl Strategy<Value = Complex64> {
    (-scale..scale, -scale..scale).prop_map(|(re, im)| Complex64::new(re, im))
}

fn stable_mode() -> impl Strategy<Value = Complex64> {
    (-5.0..-0.01, -50.0..50.0).prop_map(|(re, im)| Complex64::new(re, im))
}

/// [[re, -im], [im, re]], which acts on (Re x, Im x) as `z` does on x.
fn as_matrix(z: Complex64) -> [f64; 4] {
    [z.re, -z.im, z.im, z.re]
}

type Columns = Vec<Vec<Complex64>>;

/// lambda, p, q, b, x and dt of a system of rank 1 to 3.
fn dplr() -> impl Strategy<Value = (Vec<Complex64>, Columns, Columns, Vec<Complex64>, Vec<Complex64>, f64)> {
    (1usize..6, 1usize..4).prop_flat_map(|(n, rank)| {
        let vector = move || prop::collection::vec(complex(1.0), n);
        let p = prop::collection::vec(vector(), rank);
        (prop::collection::vec(stable_mode(), n), p, vector(), vector(), -4.0..-0.5f64, any::<bool>(), vector())
            .prop_map(|(lambda, p, b, x, log_dt, same, nudge)| {
                let mut q = p.clone();
                if !same {
                    q[0].iter_mut().zip(nudge).for_each(|(q, e)| *q += 0.1 * e);
                }
                (lambda, p, q, b, x, 10f64.powf(log_dt))
            })
    })
}

/// The equations of LinOSS: the step of velocity and position, and what a force of 1 adds to them.
fn equations(scheme: Scheme, a: f64, g: f64, dt: f64) -> (DMatrix<f64>, DVector<f64>) {
    let kept = 1.0 / if scheme == Scheme::Im { 1.0 + dt * dt * a } else { 1.0 + dt * g };
    let velocity = [kept, -dt * a * kept];
    let m = [velocity[0], velocity[1], dt * velocity[0], 1.0 + dt * velocity[1]];
    (dense(&m, 2), DVector::from_column_slice(&[dt * kept, dt * dt * kept]))
}

fn oscillator() -> impl Strategy<Value = (Scheme, f64, f64, f64)> {
    let dt = (-3.0..-0.3f64).prop_map(|log_dt| 10f64.powf(log_dt));
    (any::<bool>(), 0.0..4.0f64, prop_oneof![Just(0.0), 0.0..10.0f64], dt).prop_map(|(implicit, turn, g, dt)| {
        let scheme = if implicit { Scheme::Im } else { Scheme::Imex };
        // Of any frequency that is stable undamped.
        (scheme, turn / (dt * dt), g, dt)
    })
}

proptest! {
    /// Implicit Euler is the generalised bilinear transform with alpha = 1.
    #[test]
    fn an_implicit_oscillator_is_backward_euler(a in 0.0..100.0f64, log_dt in -4.0..1.0f64) {
        let dt = 10f64.powf(log_dt);
        let bar = discretize_oscillator(Scheme::Im, a, 0.0, dt);
        let (abar, bbar) = discretize_matrix(Disc::BackwardEuler, 0.5, &[0.0, -a, 1.0, 0.0], &[1.0, 0.0], 2, dt).unwrap();
        let found = [2.0 + bar.drag - bar.pull, 1.0 + bar.drag, bar.gain];
        let expected = [abar[0] + abar[3], abar[0] * abar[3] - abar[1] * abar[2], bbar[1]];
        prop_assert!(near(&found, &expected, 1e-13), "{bar:?}");
    }

    #[test]
    fn an_oscillators_eigenvalues_and_response_are_those_of_its_equations((scheme, a, g, dt) in oscillator()) {
        let (m, f) = equations(scheme, a, g, dt);
        let bar = discretize_oscillator(scheme, a, g, dt);
        let [p, q] = bar.eigenvalues();
        prop_assert!(((p + q).re - m.trace()).abs() < 1e-13 && ((p * q).re - m.determinant()).abs() < 1e-13);
        let (mut state, largest) = (f.clone(), f[1]);
        for (t, position) in bar.impulse_response().take(20).enumerate() {
            prop_assert!((position - state[1]).abs() < 1e-12 * largest * (t + 1) as f64);
            state = &m * state;
        }
    }

    /// Whatever the step size, its velocity and its position are those of the equations, in its state of another step size.
    #[test]
    fn an_oscillator_goes_on_at_another_step_size((scheme, a, g, dt) in oscillator(), ratio in 0.1..1.0f64) {
        let regular = discretize_oscillator(scheme, a, g, dt);
        let bar = discretize_oscillator(scheme, a, g, ratio * dt);
        let OscillatorStep { sign, delta, drive } = bar.step_at(&regular);
        let [s, x] = if sign > 0.0 { [dt, 0.0] } else { [-dt, 2.0] };
        let basis = dense(&[s, x, 0.0, 1.0], 2);
        let (m, f) = equations(scheme, a, g, ratio * dt);
        let expected = &basis * m * basis.clone().try_inverse().unwrap();
        let found = dense(&delta, 2) + sign * DMatrix::identity(2, 2);
        prop_assert!(near(found.as_slice(), expected.as_slice(), 1e-12), "{found} is not {expected}");
        let driven = [bar.gain * drive, bar.gain];
        prop_assert!(near(&driven, (basis * f).as_slice(), 1e-12), "{driven:?}");
    }

    #[test]
    fn diagonal_discretisation_is_matrix_discretisation(lambda in stable_mode(), log_dt in -4.0..0.0f64, alpha in 0.0..1.0f64) {
        let dt = 10f64.powf(log_dt);
        for disc in [Disc::Zoh, Disc::Bilinear, Disc::Euler, Disc::BackwardEuler, Disc::Gbt, Disc::Discrete] {
            let ModeBar { a, f, .. } = discretize_mode(disc, alpha, lambda, dt);
            let (abar, bbar) = discretize_matrix(disc, alpha, &as_matrix(lambda), &[1.0, 0.0], 2, dt).unwrap();
            prop_assert!(near(&as_matrix(a), &abar, 1e-12), "{disc:?}: {a} is not {abar:?}");
            prop_assert!(near(&[f.re, f.im], &bbar, 1e-12), "{disc:?}: {f} is not {bbar:?}");
        }
    }

    #[test]
    fn minus_one_is_the_difference_and_keeps_its_digits(lambda in stable_mode(), log_dt in -12.0..0.0f64, alpha in 0.0..1.0f64) {
        let dt = 10f64.powf(log_dt);
        for disc in [Disc::Zoh, Disc::Bilinear, Disc::Euler, Disc::BackwardEuler, Disc::Gbt] {
            let ModeBar { a, a_minus_one: delta, f } = discretize_mode(disc, alpha, lambda, dt);
            prop_assert!((a - 1.0 - delta).norm() < 1e-15 * (1.0 + a.norm()), "{disc:?}");
            // Bbar = (Abar - I) A^-1 B for them all.
            prop_assert!((delta / lambda - f).norm() < 1e-14 * f.norm(), "{disc:?}");
        }
    }

    #[test]
    fn dplr_by_woodbury_is_the_dense_bilinear_transform((lambda, p, q, b, x, dt) in dplr(), pairs in any::<bool>()) {
        let conj = |v: &[Complex64]| -> Vec<Complex64> {
            if pairs { v.iter().copied().chain(v.iter().map(|z| z.conj())).collect() } else { v.to_vec() }
        };
        let n = conj(&lambda).len();
        let mut a = DMatrix::from_diagonal(&DVector::from_vec(conj(&lambda)));
        for (p, q) in p.iter().zip(&q) {
            a -= DVector::from_vec(conj(p)) * DVector::from_vec(conj(q)).adjoint();
        }
        let identity = DMatrix::<Complex64>::identity(n, n);
        let half = Complex64::from(dt / 2.0);
        let back = (&identity - &a * half).lu();
        let u = 0.7;
        let input = DVector::from_vec(conj(&b)) * Complex64::from(dt * u);
        let right = (&identity + &a * half) * DVector::from_vec(conj(&x)) + input;
        let expected = back.solve(&right).unwrap();

        let p: Vec<&[Complex64]> = p.iter().map(Vec::as_slice).collect();
        let q: Vec<&[Complex64]> = q.iter().map(Vec::as_slice).collect();
        let bar = discretize_dplr(&lambda, &p, &q, &b, dt, pairs).unwrap();
        prop_assert_eq!(bar.w.len(), if pairs { p.len() } else { 2 * p.len() });
        let mut next: Vec<_> = (0..x.len()).map(|i| bar.a[i] * x[i] + bar.b[i] * u).collect();
        for (w, v) in bar.w.iter().zip(&bar.v) {
            let s: f64 = v.iter().zip(&x).map(|(v, x)| (v * x).re).sum();
            next.iter_mut().zip(w).for_each(|(next, w)| *next -= w * s);
        }
        let scale = expected.iter().fold(0.0, |m: f64, z| m.max(z.norm()));
        for (next, expected) in next.iter().zip(expected.iter()) {
            prop_assert!((next - expected).norm() < 1e-11 * scale, "{next} is not {expected}");
        }
        for (a, delta) in bar.a.iter().zip(&bar.a_minus_one) {
            prop_assert!((a - 1.0 - delta).norm() < 1e-14);
        }
    }

    #[test]
    fn gbt_in_the_schur_basis_is_gbt(n in 1usize..9, seed in prop::collection::vec(-3.0..3.0f64, 90), alpha in 0.0..1.0f64, dt in 0.001..0.2f64) {
        // Stable, for its field of values is left of zero: then I - alpha dt A is well conditioned.
        let a: Vec<f64> = (0..n * n).map(|i| seed[i] - if i % (n + 1) == 0 { 3.0 * n as f64 } else { 0.0 }).collect();
        let (a, b, x) = (&a[..], &seed[81..81 + n], DVector::from_column_slice(&seed[72..72 + n]));
        let schur = RealSchur::new(a, n).unwrap();
        let (z, t) = (dense(&schur.z, n), dense(&schur.t, n));
        prop_assert!(near((&z * &t * z.transpose()).transpose().as_slice(), a, 1e-13));
        prop_assert!((0..n).all(|i| (0..i.saturating_sub(1)).all(|j| schur.t[i * n + j] == 0.0)));
        prop_assert!((2..n).all(|i| t[(i, i - 1)] == 0.0 || t[(i - 1, i - 2)] == 0.0));

        let (expected, bbar) = discretize_matrix(Disc::Gbt, alpha, a, b, n, dt).unwrap();
        let rotated = schur.rotate(b);
        let (abar, b_schur) = schur.gbt(alpha, dt, &rotated);
        prop_assert!((0..n * n).all(|i| schur.t[i] != 0.0 || abar[i] == 0.0 || i % n > i / n));
        let back = &z * dense(&abar, n) * z.transpose();
        prop_assert!(near(back.transpose().as_slice(), &expected, 1e-12));
        prop_assert!(near((&z * DVector::from_vec(b_schur)).as_slice(), &bbar, 1e-12));

        let mut state = schur.rotate(x.as_slice());
        schur.step(alpha, dt, &rotated, 0.3, &mut state);
        let next = dense(&expected, n) * &x + 0.3 * DVector::from_vec(bbar);
        prop_assert!(near((&z * DVector::from_vec(state)).as_slice(), next.as_slice(), 1e-12));
    }

    #[test]
    fn eigenvalues_have_the_trace_and_the_determinant(n in 1usize..7, a in prop::collection::vec(-3.0..3.0f64, 36)) {
        let a = &a[..n * n];
        let values = RealSchur::new(a, n).unwrap().eigenvalues();
        let (sum, product): (Complex64, Complex64) = (values.iter().sum(), values.iter().product());
        let scale: f64 = values.iter().map(|v| v.norm()).product();
        prop_assert!((sum - dense(a, n).trace()).norm() < 1e-12 * 3.0 * n as f64);
        prop_assert!((product - dense(a, n).determinant()).norm() < 1e-11 * (scale + 1.0));
    }

    #[test]
    fn what_cannot_be_discretised_is_an_error_and_no_panic(a in prop::collection::vec(any::<f64>(), 9), dt in any::<f64>(), alpha in any::<f64>()) {
        for disc in [Disc::Zoh, Disc::Bilinear, Disc::Gbt, Disc::Dss] {
            if let Ok((a, b)) = discretize_matrix(disc, alpha, &a, &a[..3], 3, dt) {
                prop_assert!(a.iter().chain(&b).all(|x| !x.is_nan()));
            }
        }
        if let Ok(schur) = RealSchur::new(&a, 3) {
            prop_assert!(schur.t.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn zoh_at_zero_and_tiny_eigenvalues_is_an_integrator() {
    for lambda in [0.0, 1e-320, 1e-200, -1e-18, -1e-9] {
        let ModeBar { a, f, .. } = discretize_mode(Disc::Zoh, 0.5, lambda.into(), 0.25);
        assert!((a - 1.0).norm() < 1e-9 && (f - 0.25).norm() < 1e-9, "{lambda}: {a} {f}");
    }
    let f = discretize_mode(Disc::Zoh, 0.5, Complex64::new(0.0, -1e-12), 1.0).f;
    assert!((f - Complex64::new(1.0, -0.5e-12)).norm() < 1e-16);
}

#[test]
fn a_cyclic_permutation_has_a_schur_form() {
    for n in [3, 4, 8, 17] {
        let a: Vec<f64> = (0..n * n).map(|i| f64::from((i / n + n - 1) % n == i % n)).collect();
        let schur = RealSchur::new(&a, n).unwrap();
        let z = dense(&schur.z, n);
        assert!(near((&z * dense(&schur.t, n) * z.transpose()).transpose().as_slice(), &a, 1e-13));
        assert!(schur.eigenvalues().iter().all(|v| (v.norm() - 1.0).abs() < 1e-12));
    }
}

#[test]
fn a_chain_of_delays_has_a_schur_form() {
    let n = 12;
    let a: Vec<f64> = (0..n * n).map(|i| f64::from(i / n == i % n + 1)).collect();
    let schur = RealSchur::new(&a, n).unwrap();
    let z = dense(&schur.z, n);
    assert!(near((&z * dense(&schur.t, n) * z.transpose()).transpose().as_slice(), &a, 1e-13));
}

#[test]
fn a_pole_on_the_step_size_is_an_error() {
    let error = discretize_matrix(Disc::BackwardEuler, 0.5, &[2.0], &[1.0], 1, 0.5).unwrap_err();
    assert!(error.to_string().contains("found it singular at dt = 0.5"), "{error}");
    let lambda = [Complex64::from(-1.0)];
    let (p, q) = ([Complex64::from(1.0)], [Complex64::from(-2.0)]);
    assert!(discretize_dplr(&lambda, &[&p], &[&q], &p, 2.0, false).is_err());
}

#[test]
fn exponentials_of_large_matrices_are_right_or_errors() {
    let zoh = |a: &[f64], dt| discretize_matrix(Disc::Zoh, 0.5, a, &[1.0, -1e30], 2, dt);
    // Nilpotent, though far from small: I + A.
    let (abar, _) = zoh(&[1e6, 1e6, -1e6, -1e6], 1e-3).unwrap();
    assert!(near(&abar, &[1001.0, 1000.0, -1000.0, -999.0], 1e-9), "{abar:?}");
    assert_eq!(zoh(&[-1e14, 0.0, 0.0, -1e14], 1.0).unwrap().0, [0.0; 4]);
    assert!(zoh(&[1e14, 0.0, 0.0, -1e14], 1.0).unwrap_err().to_string().contains("within float64's range"));
    assert!(zoh(&[1e200, 0.0, 0.0, 1e200], 1e200).unwrap_err().to_string().contains("norm below 1e15"));
}

/// Upstream's own numbers, from the reference implementation of HiPPO in float64.
#[test]
fn hippo_matrices_are_those_of_s4() {
    let legs_b = [1.0, 1.7320508075688772, 2.23606797749979, 2.6457513110645907];
    #[rustfmt::skip]
    let legs = [
        -1.0, 0.0, 0.0, 0.0,
        -1.7320508075688772, -2.0, 0.0, 0.0,
        -2.23606797749979, -3.8729833462074175, -3.0, 0.0,
        -2.6457513110645907, -4.582575694955841, -5.916079783099616, -4.0,
    ];
    #[rustfmt::skip]
    let legt = [
        -0.5, 0.8660254037844386, -1.118033988749895, 1.3228756555322954,
        -0.8660254037844386, -1.5, 1.9364916731037085, -2.29128784747792,
        -1.118033988749895, -1.9364916731037085, -2.5, 2.9580398915498085,
        -1.3228756555322954, -2.29128784747792, -2.9580398915498085, -3.5,
    ];
    #[rustfmt::skip]
    let lagt = [
        -0.5, 0.0, 0.0, 0.0,
        -1.0, -0.5, 0.0, 0.0,
        -1.0, -1.0, -0.5, 0.0,
        -1.0, -1.0, -1.0, -0.5,
    ];
    let (r, pi) = (std::f64::consts::SQRT_2, std::f64::consts::PI);
    #[rustfmt::skip]
    let fourier = [
        -1.0, 0.0, -r, 0.0,
        0.0, 0.0, 0.0, 0.0,
        -r, 0.0, -2.0, -pi,
        0.0, 0.0, pi, 0.0,
    ];
    let half: Vec<f64> = legs_b.iter().map(|b| 0.5 * b).collect();
    for (measure, a, b) in [
        ("legs", legs, &legs_b[..]),
        ("legt", legt, &half),
        ("lagt", lagt, &[1.0; 4]),
        ("fourier", fourier, &[1.0, 0.0, r, 0.0]),
    ] {
        let (found_a, found_b) = hippo(measure, 4).unwrap();
        assert!(near(&found_a, &a, 1e-15) && near(&found_b, b, 1e-15), "{measure}: {found_a:?} {found_b:?}");
    }
    assert!(hippo("fourier", 5).unwrap_err().to_string().contains("expected an even number"));
    assert!(hippo("chebyshev", 4).unwrap_err().to_string().contains("found \"chebyshev\""));
    assert!(hippo("legs", 0).is_err() && hippo("legs", usize::MAX).is_err());
}

/// Against SciPy's cont2discrete of HiPPO-LegS at N = 4, dt = 0.1: last row of Abar, and Bbar.
#[test]
fn gbt_and_zoh_are_those_of_cont2discrete() {
    let (a, b) = hippo("legs", 4).unwrap();
    for (disc, alpha, row, bbar) in [
        (
            Disc::Gbt,
            0.0,
            [-0.2645751311064591, -0.4582575694955841, -0.5916079783099616, 0.6],
            [0.1, 0.17320508075688773, 0.223606797749979, 0.2645751311064591],
        ),
        (
            Disc::Gbt,
            0.5,
            [-0.1419234187188798, -0.2716942111633898, -0.4287014335579432, 0.6666666666666667],
            [0.09523809523809523, 0.14996110888042227, 0.15992957490117074, 0.1419234187188798],
        ),
        (
            Disc::Gbt,
            1.0,
            [-0.07929324608585187, -0.16785991556614804, -0.32505932874173715, 0.7142857142857143],
            [0.09090909090909091, 0.13121597027036952, 0.11727629252621273, 0.07929324608585187],
        ),
        (
            Disc::Zoh,
            0.5,
            [-0.12973408801269404, -0.2551095104324574, -0.4170728257690913, 0.6703200460356392],
            [0.09516258196404044, 0.14914111857752804, 0.15589508131256452, 0.12973408801269398],
        ),
    ] {
        let (found_a, found_b) = discretize_matrix(disc, alpha, &a, &b, 4, 0.1).unwrap();
        assert!(near(&found_a[12..], &row, 1e-14) && near(&found_b, &bbar, 1e-14), "{disc:?} {alpha}");
    }
}
