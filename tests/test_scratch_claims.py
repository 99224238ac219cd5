"""Reading a claim: agreement with scipy and scikit-learn over generated data, what holds for any numbers, bad input."""
import subprocess, sys
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from bearclass.core import InputError
from bearclass.scratch import claims as C, decisions as D, hidden as H

fast = settings(max_examples=60, deadline=None)


@st.composite
def clouds(draw):
    "Points with a slope, a noise and a scale of any size, drawn from a seed."
    rng = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    x,noise = rng.normal(size=(2, draw(st.integers(3, 60))))
    x = draw(st.floats(-1e3, 1e3)) + draw(st.sampled_from([1e-2, 1., 1e3]))*x
    y = draw(st.floats(-1e3, 1e3)) + draw(st.floats(-5, 5))*x + draw(st.sampled_from([1e-1, 1., 1e3]))*noise
    assume(np.ptp(x)>0 and np.ptp(y)>0)
    return x, y


# --- agreement with others -------------------------------------------------------------------------------------------

@fast
@given(clouds(), st.floats(-10, 10), st.floats(.1, 10))
def test_p_value_does_not_depend_on_units(xy, shift, scale):
    x, y = xy
    assert np.isclose(C.p_value(x, y), C.p_value(shift+scale*x, y*3-1), rtol=1e-4, atol=1e-9)


def test_shuffling_agrees_with_scipy_on_every_order():
    x, y = np.array([1., 2, 4, 7, 3, 5]), np.array([2., 1, 3, 5, 6, 4])
    slope = lambda y: stats.linregress(x, y).slope
    exact = stats.permutation_test((y,), slope, permutation_type='pairings', n_resamples=np.inf).pvalue
    assert abs(C.p_value(x, y, 'shuffle', n_worlds=40_000)-exact) < .015


@fast
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 40))
def test_multiple_regression_agrees(seed, k, extra):
    "With scikit-learn, and with the line through what the other causes leave."
    n = k+4+extra
    df = pd.DataFrame(np.random.default_rng(seed).normal(size=(n, k+1)), columns=[*'abcd'[:k], 'R'])
    t = H.multiple_regression(df)
    ref = LinearRegression().fit(df.drop(columns='R'), df.R)
    assert np.allclose(t.slope, [ref.intercept_, *ref.coef_], atol=1e-8)
    left = C.linear_regression(*H.added_variable(df, 'a'))
    assert np.isclose(left.slope, t.slope.a, atol=1e-8)
    assert np.isclose(left.stderr*np.sqrt((n-2)/(n-k-1)), t.stderr.a, rtol=1e-6)


# --- what must hold for any numbers ----------------------------------------------------------------------------------

@fast
@given(st.integers(3, 40), st.floats(.01, 2), st.integers(0, 10_000))
def test_effective_n_is_between_two_and_n(n, reach, seed):
    xy = np.random.default_rng(seed).random((n, 2))
    assert 2-1e-6 <= H.effective_n(H.neighbour_correlation(xy, reach)) <= n+1e-6


def test_worlds_are_drawn_in_blocks():
    "More worlds than fit into one block; the same seed, the same worlds."
    slopes = C.simulate_slopes(300_000, 5, seed=3)
    assert slopes.shape==(5,) and len(set(slopes))==5 and np.array_equal(slopes, C.simulate_slopes(300_000, 5, seed=3))


@fast
@given(st.integers(3, 400), st.floats(0, 1))
def test_power_is_a_probability_that_grows(n, slope):
    p = C.power(slope, n)
    assert 0<=p<=1+1e-9
    assert C.power(slope, 2*n) >= p-1e-3 and C.power(2*slope, n) >= p-1e-9


@fast
@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(0, 1))
def test_four_outcomes(u, p):
    o = D.FourOutcomes([u[:2], u[2:]], p)
    assert np.allclose(o.expected, [p*u[0]+(1-p)*u[1], p*u[2]+(1-p)*u[3]])
    assert o.value_of_knowing >= -1e-9
    if o.break_even is not None:
        assert 0<=o.break_even<=1     # the ends only by rounding
        assert np.isclose(*D.FourOutcomes(o.utilities, o.break_even).expected, atol=1e-6)


# --- bad input, beside that on the pages -----------------------------------------------------------------------------

bad_calls = {
    'n_cities=True': lambda: C.draw_cities(True),
    "n_worlds='9'": lambda: C.simulate_slopes(n_worlds='9'),
    'x of shape (1, 3)': lambda: C.p_value([[1, 2, 3]], [[1, 2, 3]]),
    'chance=80': lambda: C.cities_needed(-.02, chance=80),
    'cannot be used': lambda: H.multiple_regression(pd.DataFrame(dict(R=[1, 2, 3, 4], a=list('wxyz')))),
    "prior='much'": lambda: D.posterior('much')}


@pytest.mark.parametrize('says', bad_calls)
def test_bad_input_says_what_came(says):
    with pytest.raises(InputError) as e: bad_calls[says]()
    assert says in str(e.value) and 'Expected:' in str(e.value) and 'What to do:' in str(e.value)


def test_drivetrain_is_kept_word_for_word(tmp_path):
    d = D.Drivetrain('Bären & Co', 'mehr <Honig>', 'a\n\n - b ', ['c'], [])
    assert d.levers==['a', 'b'] and D.load_drivetrain(d.save(tmp_path/'d.json'))==d
    assert '&lt;Honig&gt;' in d.save(tmp_path/'d.md').read_text(encoding='utf-8')


def test_imports_neither_torch_nor_fastai():
    code = ('import sys, bearclass.scratch.decisions, bearclass.scratch.hidden; '
            'print({"torch", "fastai"} & set(sys.modules))')
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert said.strip()=='set()'
