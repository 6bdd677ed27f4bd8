from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import optimize

from clearsight.reference.second_order import Minimum, bfgs, conjugate_gradients, lbfgs, newton


def himmelblau(x):
    return float((x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2)


def himmelblau_gradient(x):
    a, b = x[0] ** 2 + x[1] - 11, x[0] + x[1] ** 2 - 7
    return np.array([4 * x[0] * a + 2 * b, 2 * a + 4 * x[1] * b])


def himmelblau_hessian(x):
    mixed = 4 * (x[0] + x[1])
    return np.array([[12 * x[0] ** 2 + 4 * x[1] - 42, mixed], [mixed, 4 * x[0] + 12 * x[1] ** 2 - 26]])


N = 12
SPREAD = np.logspace(0, 6, N)  # condition number 1e6
TURN = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))[0]
H = TURN @ np.diag(SPREAD) @ TURN.T
BEST = np.linspace(-1, 1, N)


def quadratic(x):
    return float(0.5 * (x - BEST) @ H @ (x - BEST))


def quadratic_gradient(x):
    return H @ (x - BEST)


def quadratic_hessian(_):
    return H


def saddle(x):
    """Minima at (0, ±1), a saddle at 0."""
    return float(x[0] ** 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2)


def saddle_gradient(x):
    return np.array([2 * x[0], x[1] ** 3 - x[1]])


def saddle_hessian(x):
    return np.array([[2.0, 0.0], [0.0, 3 * x[1] ** 2 - 1]])


PROBLEMS = {
    "rosenbrock": (optimize.rosen, optimize.rosen_der, optimize.rosen_hess, np.array([-1.2, 1.0])),
    "rosenbrock_far": (optimize.rosen, optimize.rosen_der, optimize.rosen_hess, np.array([5.0, -7.0])),
    "rosenbrock_10": (optimize.rosen, optimize.rosen_der, optimize.rosen_hess, np.linspace(0.5, 1.5, 10)),
    "himmelblau_1": (himmelblau, himmelblau_gradient, himmelblau_hessian, np.array([1.0, 1.0])),
    "himmelblau_2": (himmelblau, himmelblau_gradient, himmelblau_hessian, np.array([-4.0, 4.0])),
    "himmelblau_3": (himmelblau, himmelblau_gradient, himmelblau_hessian, np.array([4.0, -3.0])),
    "ill_conditioned": (quadratic, quadratic_gradient, quadratic_hessian, np.zeros(N)),
}
HIMMELBLAU_MINIMA = np.array([[3, 2], [-2.805118, 3.131312], [-3.779310, -3.283186], [3.584428, -1.848126]])


def run(method: str, function, gradient, hessian, x_0, **options) -> Minimum:
    if method == "newton":
        return newton(function, gradient, hessian, x_0, **options)
    search = {"bfgs": bfgs, "lbfgs": lbfgs, "cg": conjugate_gradients}[method]
    return search(function, x_0, gradient=gradient, **options)


METHODS = ["newton", "bfgs", "lbfgs", "cg"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_reaches_scipys_minimum(method, name):
    function, gradient, hessian, x_0 = PROBLEMS[name]
    # Ten pairs need a thousand steps on the ill-conditioned quadratic, as scipy's L-BFGS-B does with as many.
    options = {"memory": 20} if method == "lbfgs" else {}
    found = run(method, function, gradient, hessian, x_0, tolerance=1e-6, **options)
    assert found.converged, found
    assert found.slope <= 1e-6
    assert found.value == function(found.x)
    if name.startswith("himmelblau"):  # which of the four depends on the way
        assert np.abs(HIMMELBLAU_MINIMA - found.x).max(axis=1).min() < 1e-5
        from_there = optimize.minimize(function, found.x, jac=gradient, method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(found.x, from_there.x, atol=1e-6)
    else:
        scipys = optimize.minimize(function, x_0, jac=gradient, hess=hessian, method="trust-exact",
                                   options={"gtol": 1e-8})  # fmt: skip
        np.testing.assert_allclose(found.x, scipys.x, atol=2e-5)
        assert found.value <= scipys.fun + 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_leaves_a_saddle(method):
    # −H⁻¹·g of the unguarded Newton step leads to the saddle from here.
    start = np.array([0.5, 0.1])
    step = -np.linalg.solve(saddle_hessian(start), saddle_gradient(start))
    assert np.abs(start + step).max() < 0.01
    found = run(method, saddle, saddle_gradient, saddle_hessian, start)
    assert found.converged
    np.testing.assert_allclose(np.abs(found.x), [0, 1], atol=1e-7)
    assert found.value == pytest.approx(-0.25)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(8))
def test_leaves_a_saddle_of_many_dimensions_from_anywhere_near(method, seed):
    # Σ λᵢ zᵢ²/2 + zᵢ⁴/4 in turned coordinates z: a saddle at 0, 2³ minima where zᵢ² = −λᵢ for the negative λᵢ.
    spread = np.array([-3.0, -1.0, -0.3, 0.5, 2.0, 30.0])
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]

    def function(x):
        z = turn.T @ x
        return float((spread * z**2 / 2 + z**4 / 4).sum())

    def gradient(x):
        z = turn.T @ x
        return turn @ (spread * z + z**3)

    def hessian(x):
        return turn @ np.diag(spread + 3 * (turn.T @ x) ** 2) @ turn.T

    start = turn @ np.array([0.01, -0.01, 0.01, 1.0, -1.0, 0.5]) + 1e-3 * rng.standard_normal(6)
    found = run(method, function, gradient, hessian, start)
    assert found.converged
    assert np.linalg.eigvalsh(hessian(found.x))[0] > 0.1
    np.testing.assert_allclose(np.abs(turn.T @ found.x), np.sqrt(np.maximum(0, -spread)), atol=1e-7)
    scipys = optimize.minimize(function, start, jac=gradient, method="BFGS", options={"gtol": 1e-9})
    assert found.value == pytest.approx(scipys.fun, abs=1e-10)


def test_newton_leaves_the_ridge_that_leads_to_a_saddle():
    # No slope along y: by slopes alone one ends in the saddle, where each unguarded step leads.
    found = newton(saddle, saddle_gradient, saddle_hessian, np.array([0.5, 0.0]))
    assert found.converged
    np.testing.assert_allclose(np.abs(found.x), [0, 1], atol=1e-7)


def test_newton_leaves_the_saddle_itself():
    found = newton(saddle, saddle_gradient, saddle_hessian, np.zeros(2))
    assert found.converged
    np.testing.assert_allclose(np.abs(found.x), [0, 1], atol=1e-7)
    stuck = bfgs(saddle, np.zeros(2), gradient=saddle_gradient)  # sees no slope, as documented
    assert (stuck.iterations, stuck.value) == (0, 0)


def test_newton_solves_a_quadratic_in_one_step():
    found = newton(quadratic, quadratic_gradient, quadratic_hessian, np.zeros(N), tolerance=1e-6)
    assert found.iterations == 1


def test_conjugate_gradients_solve_a_quadratic_in_as_many_steps_as_eigenvalues():
    matrix = np.diag([1.0, 1.0, 5.0, 5.0, 20.0])
    found = conjugate_gradients(
        lambda x: float(x @ matrix @ x / 2), np.array([1.0, 2.0, 3.0, -4.0, 5.0]), gradient=lambda x: matrix @ x,
        tolerance=1e-4,
    )  # fmt: skip
    assert found.converged
    assert found.iterations <= 8  # three eigenvalues; the line search is not exact


def test_curvature_beats_plain_descent():
    x, rate = np.zeros(N), 1 / SPREAD[-1]
    for _ in range(2000):
        x = x - rate * quadratic_gradient(x)
    assert np.abs(quadratic_gradient(x)).max() > 1e-2
    for search in (bfgs, partial(lbfgs, memory=20), conjugate_gradients):
        assert search(quadratic, np.zeros(N), gradient=quadratic_gradient, tolerance=1e-6).iterations < 200


def test_bfgs_learns_the_inverse_hessian():
    from clearsight.reference.second_order import _Bfgs

    rule, rng = _Bfgs(), np.random.default_rng(0)
    matrix = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
    s = np.zeros(3)
    for _ in range(60):
        s = rng.standard_normal(3)
        rule.learn(s, matrix @ s)
        np.testing.assert_allclose(rule._inverse @ (matrix @ s), s, rtol=1e-9, atol=1e-9)  # the secant equation
    np.testing.assert_allclose(rule._inverse, np.linalg.inv(matrix), atol=1e-4)
    before = rule._inverse.copy()
    rule.learn(s, -(matrix @ s))  # negative curvature would make it indefinite
    np.testing.assert_array_equal(rule._inverse, before)


def test_lbfgs_with_all_pairs_is_bfgs():
    from clearsight.reference.second_order import _Bfgs, _Lbfgs

    rng, full, limited = np.random.default_rng(0), _Bfgs(), _Lbfgs(3)
    matrix = np.diag([1.0, 4.0, 9.0, 2.0])
    pairs = [(s, matrix @ s) for s in rng.standard_normal((4, 4))]
    s, y = pairs[-1]
    full._inverse = np.eye(4) * (s @ y) / (y @ y)
    for pair in pairs:
        limited.learn(*pair)
    for pair in pairs[1:]:  # the oldest of four is forgotten
        full.learn(*pair)
    g = rng.standard_normal(4)
    before = g.copy()
    np.testing.assert_allclose(limited.direction(g), full.direction(g), rtol=1e-10)
    np.testing.assert_array_equal(g, before)
    limited.forget()
    full.forget()
    np.testing.assert_array_equal(limited.direction(g), -g)
    for rule in (limited, full):
        rule.learn(s, y)
    np.testing.assert_allclose(limited.direction(g), full.direction(g), rtol=1e-10)


@pytest.mark.parametrize("search", [bfgs, lbfgs, conjugate_gradients])
def test_works_from_values_alone(search):
    found = search(optimize.rosen, np.array([-1.2, 1.0]), tolerance=1e-5)
    assert found.converged
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_steps_run_out_honestly(method):
    function, gradient, hessian, x_0 = PROBLEMS["rosenbrock"]
    found = run(method, function, gradient, hessian, x_0, steps=2)
    assert (found.iterations, found.converged) == (2, False)
    assert found.value < function(x_0)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_at_the_minimum_takes_no_step(method):
    start = np.array([3.0, 2.0])
    found = run(method, himmelblau, himmelblau_gradient, himmelblau_hessian, start)
    assert (found.iterations, found.converged) == (0, True)
    assert found.x is not start


def test_errors():
    for search in (bfgs, lbfgs, conjugate_gradients):
        with pytest.raises(ValueError, match=r"x_0: expected a vector \(n,\), found shape \(2, 2\); pass x.ravel\(\)"):
            search(quadratic, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="x_0: expected a vector"):
        newton(quadratic, quadratic_gradient, quadratic_hessian, 1.0)
    with pytest.raises(ValueError, match="memory: expected at least 1 pair, found 0"):
        lbfgs(quadratic, np.zeros(N), memory=0)
