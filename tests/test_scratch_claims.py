"""Reading a claim: agreement with scipy and scikit-learn over generated data, simulation against formula, bad input."""
import json, subprocess, sys
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from matplotlib.axes import Axes
from scipy import stats
from sklearn.linear_model import LinearRegression
from bearclass.core import InputError, MissingError
from bearclass.scratch import claims as C, decisions as D, hidden as H

fast = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')


@st.composite
def clouds(draw, least=3, most=60):
    "Points with a slope, a noise and a scale of any size, drawn from a seed."
    n = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    x = draw(st.floats(-1e3, 1e3)) + draw(st.sampled_from([1e-2, 1., 1e3]))*rng.normal(size=n)
    y = draw(st.floats(-1e3, 1e3)) + draw(st.floats(-5, 5))*x + draw(st.sampled_from([1e-1, 1., 1e3]))*rng.normal(size=n)
    assume(np.ptp(x)>0 and np.ptp(y)>0)
    return x, y


# --- agreement with others -------------------------------------------------------------------------------------------

@fast
@given(clouds())
def test_line_agrees_with_scipy(xy):
    fit, ref = C.linear_regression(*xy), stats.linregress(*xy)
    assert np.allclose([fit.slope, fit.intercept, fit.stderr], [ref.slope, ref.intercept, ref.stderr], rtol=1e-6, atol=1e-9)
    assert np.isclose(fit.r2, ref.rvalue**2, atol=1e-7)


@fast
@given(clouds(least=4), st.sampled_from(C.ALTERNATIVES))
def test_p_value_agrees_with_scipy(xy, alternative):
    assert np.isclose(C.p_value(*xy, alternative=alternative), stats.linregress(*xy, alternative=alternative).pvalue, rtol=1e-4, atol=1e-9)


@fast
@given(clouds(least=4), st.floats(.5, .99))
def test_interval_is_where_p_crosses_its_level(xy, level):
    i = C.slope_interval(C.linear_regression(*xy), level)
    assert i.low<=i.estimate<=i.high
    for end in (i.low, i.high): assert np.isclose(C.p_value(*xy, null=end), 1-level, atol=1e-5)


@fast
@given(clouds(), st.floats(-10, 10), st.floats(.1, 10))
def test_p_value_does_not_depend_on_units(xy, shift, scale):
    x, y = xy
    assert np.isclose(C.p_value(x, y), C.p_value(shift+scale*x, y*3-1), rtol=1e-4, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(clouds(least=8, most=40), st.sampled_from(C.ALTERNATIVES))
def test_shuffling_agrees_with_the_formula(xy, alternative):
    p = C.p_value(*xy, alternative=alternative)
    assert abs(C.p_value(*xy, 'shuffle', alternative, n_worlds=4000)-p) < .09   # they are different tests: close, not equal


def test_another_null_by_shuffling_and_by_formula():
    x, y = C.draw_cities(40, slope=-.2, seed=3)
    assert C.p_value(x, y) < 1e-6 and C.p_value(x, y, 'shuffle') < .001
    for null in (-.2, -.25): assert abs(C.p_value(x, y, 'shuffle', null=null)-C.p_value(x, y, null=null)) < .03


def test_shuffling_agrees_with_scipy_on_every_order():
    x, y = np.array([1., 2, 4, 7, 3, 5]), np.array([2., 1, 3, 5, 6, 4])
    exact = stats.permutation_test((y,), lambda y: stats.linregress(x, y).slope, permutation_type='pairings', n_resamples=np.inf).pvalue
    assert abs(C.p_value(x, y, 'shuffle', n_worlds=40_000)-exact) < .015


@fast
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 40))
def test_multiple_regression_agrees(seed, k, extra):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(rng.normal(size=(k+4+extra, k+1)), columns=[*(f'c{i}' for i in range(k)), 'R'])
    t = H.multiple_regression(df)
    ref = LinearRegression().fit(df.drop(columns='R'), df.R)
    assert np.allclose(t.slope, [ref.intercept_, *ref.coef_], atol=1e-8)
    if k==1:
        one = stats.linregress(df.c0, df.R)
        assert np.allclose(t.loc['c0', ['slope', 'stderr', 'p']].to_numpy(float), [one.slope, one.stderr, one.pvalue], atol=1e-8)
        assert np.isclose(t.stderr.intercept, one.intercept_stderr, atol=1e-8)
    else:
        left = C.linear_regression(*H.added_variable(df, 'c0'))
        assert np.isclose(left.slope, t.slope.c0, atol=1e-8)
        n = len(df)
        assert np.isclose(left.stderr*np.sqrt((n-2)/(n-k-1)), t.stderr.c0, rtol=1e-6)


@fast
@given(st.integers(3, 40), st.floats(.01, 2), st.integers(0, 10_000))
def test_effective_n_is_between_two_and_n(n, reach, seed):
    xy = np.random.default_rng(seed).random((n, 2))
    assert 2-1e-6 <= H.effective_n(H.neighbour_correlation(xy, reach)) <= n+1e-6


# --- simulation against formula -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('n', [3, 5, 20, 100])
@pytest.mark.parametrize('alternative', C.ALTERNATIVES)
def test_chance_of_a_slope(n, alternative):
    p = C.chance_of_slope(-.03, n, alternative=alternative)
    seen = C.share_as_steep(C.simulate_slopes(n, 10_000, seed=n), -.03, alternative)
    assert abs(seen-p) < 5*np.sqrt(p*(1-p)/10_000) + 1e-4


def test_the_course_figures():
    slopes = C.simulate_slopes()
    assert .010 < C.share_as_steep(slopes, -.023, 'less') < .014
    assert C.share_as_steep(C.simulate_slopes(3000, 500), -.023) == 0
    assert abs(C.climate_r(10, 40)-2.628) < 1e-9 and abs(C.climate_r(35, 80)-.718) < 1e-9


def test_seeds_repeat_and_small_blocks_give_as_many_worlds(monkeypatch):
    whole = C.simulate_slopes(50, 64, seed=3)
    assert np.array_equal(whole, C.simulate_slopes(50, 64, seed=3))
    monkeypatch.setattr(C._blocks, '__defaults__', (500,))
    again = C.simulate_slopes(50, 64, seed=3)
    assert again.shape==(64,) and abs(again.std()-whole.std()) < .01


@pytest.mark.parametrize('n,slope', [(3, .3), (4, -.2), (12, -.05), (100, -.023), (100, 0)])
def test_power(n, slope):
    assert abs(C.power(slope, n)-C.power(slope, n, method='simulation', n_worlds=6000)) < .03


@pytest.mark.parametrize('alpha', [.01, .05, .2])
def test_power_without_a_relation_is_the_rate_of_false_alarms(alpha):
    for n in (3, 10, 200): assert abs(C.power(0, n, alpha=alpha)-alpha) < 2e-3


@fast
@given(st.integers(3, 400), st.floats(0, 1), st.floats(.1, 20), st.floats(.05, 5))
def test_power_is_a_probability_that_grows(n, slope, temp_sd, r_sd):
    p = C.power(slope, n, temp_sd, r_sd)
    assert 0<=p<=1+1e-9 and C.power(slope, 2*n, temp_sd, r_sd) >= p-1e-3 and C.power(2*slope, n, temp_sd, r_sd) >= p-1e-9


@settings(max_examples=20, deadline=None)
@given(st.floats(.01, .5), st.floats(.2, .95))
def test_cities_needed_is_the_smallest(slope, chance):
    n = C.cities_needed(slope, chance)
    assert C.power(slope, n) >= chance and (n==3 or C.power(slope, n-1) < chance)


def test_p_values_are_evenly_spread_under_the_null():
    for n in (3, 10, 100): assert stats.kstest(C.simulate_p_values(n, 3000, seed=n), 'uniform').pvalue > 1e-4


def test_intervals_hold_the_truth():
    held = [-.1 in C.slope_interval(C.linear_regression(*C.draw_cities(12, slope=-.1, seed=s)), .9) for s in range(1500)]
    assert abs(np.mean(held)-.9) < .03


def test_alone_and_together():
    w = H.simulate_alone_together(150, seed=1000)
    assert (w.p_alone<.05).mean() < .35 < .95 < (w.p_together<.05).mean()
    assert abs(w.slope_together.mean()+.038) < .004


def test_neighbours_cry_wolf_and_counting_them_right_helps():
    t = H.simulate_neighbours((0, .1, .3), n_worlds=1500, seed=5)
    assert abs(t.false_alarms[0]-.05)<.02 and t.false_alarms[.3]>t.false_alarms[.1]>.1 and (t.corrected<.075).all()


@fast
@given(st.floats(0, 1), st.floats(.01, 1), st.floats(.01, 1))
def test_posterior(prior, a, b):
    p = D.posterior(prior, a, b)
    assert 0<=p<=1
    if a>=b: assert p >= prior-1e-9
    assert np.isclose(p, prior*a/(prior*a+(1-prior)*b))


@fast
@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(0, 1))
def test_four_outcomes(u, p):
    o = D.four_outcomes([u[:2], u[2:]], p)
    assert np.allclose(o.expected, [p*u[0]+(1-p)*u[1], p*u[2]+(1-p)*u[3]])
    assert o.value_of_knowing >= -1e-9
    if o.break_even is not None:
        assert 0<=o.break_even<=1     # the ends only by rounding
        assert np.isclose(*D.four_outcomes(o.utilities, o.break_even).expected, atol=1e-6)


# --- bad input ---------------------------------------------------------------------------------------------------------

ok = [1., 2., 3., 4.]
@pytest.mark.parametrize('call,says', [
    (lambda: C.draw_cities(2), 'n_cities=2'), (lambda: C.draw_cities(10.5), 'n_cities=10.5'), (lambda: C.draw_cities(True), 'n_cities=True'),
    (lambda: C.draw_cities(temp=(5, -5)), 'temp=(5, -5)'), (lambda: C.draw_cities(r=(1.9, 0)), 'r=(1.9, 0)'), (lambda: C.draw_cities(r=1.9), 'r=1.9'),
    (lambda: C.draw_cities(temp=(np.nan, 5)), 'nan'), (lambda: C.draw_cities(slope=np.inf), 'slope=inf'),
    (lambda: C.simulate_slopes(n_worlds=-1), 'n_worlds=-1'), (lambda: C.simulate_slopes(temp=(5, np.nan)), 'nan'),
    (lambda: C.share_as_steep(np.zeros(3), np.nan), 'observed=nan'), (lambda: C.chance_of_slope(-.02, alternative='up'), "alternative='up'"),
    (lambda: C.p_value([1, 2], [1, 2]), '2 points'), (lambda: C.p_value(ok, [1, 2, np.nan, 4]), '1 of 4 values of y'),
    (lambda: C.p_value([1, np.inf, 3, 4], ok), 'values of x'), (lambda: C.p_value(ok, ok[:3]), 'shape'), (lambda: C.p_value([[1, 2, 3]], [[1, 2, 3]]), 'shape'),
    (lambda: C.p_value(ok, [5.]*4), 'all y equal 5'), (lambda: C.p_value(ok, ['a', 'b', 'c', 'd']), 'no numbers'), (lambda: C.p_value(ok, [1, 3, 2, 4], null=np.nan), 'null=nan'),
    (lambda: C.p_value(ok, [1, 3, 2, 4], 'shuffle', n_worlds=0), 'n_worlds=0'), (lambda: C.p_value(ok, [1, 3, 2, 4], 'bootstrap'), 'bootstrap'),
    (lambda: C.slope_interval(C.linear_regression(ok, [1, 3, 2, 4]), level=1), 'level=1'), (lambda: C.conclusion(C.Interval(0, -1, 1), -1), 'matters=-1'),
    (lambda: C.power(-.02, alpha=0), 'alpha=0'), (lambda: C.power(-.02, 2), 'n_cities=2'), (lambda: C.power(np.nan), 'slope=nan'),
    (lambda: C.power(-.02, temp_sd=0), '(0, 0)'), (lambda: C.power(-.02, method='guess'), 'guess'), (lambda: C.cities_needed(-.02, chance=80), 'chance=80'), (lambda: C.cities_needed(0), 'slope=0'),
    (lambda: C.climate_r(10, -1), 'humidity=-1'), (lambda: C.climate_r(np.nan, 10), 'temperature=nan'), (lambda: C.practical_effect(cases=-1), 'cases=-1'),
    (lambda: H.draw_city_table(noise=-1), 'noise'), (lambda: H.draw_city_table(alike=1), 'alike=1'), (lambda: H.multiple_regression(pd.DataFrame(dict(R=ok))), 'no column besides'),
    (lambda: H.multiple_regression(pd.DataFrame(dict(R=ok, a=[1]*4))), 'same twice'), (lambda: H.multiple_regression(pd.DataFrame(dict(R=ok, a=list('wxyz')))), "column 'a'"),
    (lambda: H.neighbour_correlation([[0, 0], [1, np.nan]], .1), 'finite places'), (lambda: H.draw_maps(np.nan), 'reach=nan'), (lambda: H.effective_n(np.eye(2)), '2 places'),
    (lambda: D.posterior(1.1), 'prior=1.1'), (lambda: D.posterior(.5, if_true=-.1), 'if_true=-0.1'), (lambda: D.posterior('much'), "prior='much'"), (lambda: D.posterior(0, .5, 0), 'either world'),
    (lambda: D.four_outcomes([[1, 2]], .5), '2 x 2'), (lambda: D.four_outcomes([[1, 2], [3, np.inf]], .5), '2 x 2'), (lambda: D.four_outcomes([[1, 2], [3, 4]], -1), 'prob=-1'),
    (lambda: D.four_outcomes([[1, 2], [3, 4]], [.5]), 'prob=[0.5]'), (lambda: D.four_outcomes([[1, 2], [3, 4]], .5, actions=('a',)), 'actions'),
    (lambda: D.Drivetrain(levers=[1]), 'levers=[1]'), (lambda: D.Drivetrain(project=3), 'project=3'),
])
def test_bad_input_says_what_came(call, says):
    with pytest.raises(InputError) as e: call()
    assert says in str(e.value) and 'Expected:' in str(e.value) and 'What to do:' in str(e.value)


# --- edges -------------------------------------------------------------------------------------------------------------

def test_three_points_and_perfect_lines():
    assert abs(C.p_value([0, 1, 2], [0, 1, 2.1], 'shuffle')-1/3) < .03       # six orders, two as steep
    assert C.p_value([0, 1, 2], [0, 1, 2]) < 1e-6
    assert C.linear_regression([0, 1, 2], [0, 2, 4]).predict(3) == pytest.approx(6)


def test_conclusions():
    say = lambda lo, hi: C.conclusion(C.Interval((lo+hi)/2, lo, hi), .01).split(':')[0]
    assert [say(.02, .03), say(-.03, -.02), say(-.005, .005), say(-.02, .005), say(.005, .02)] == ['it matters', 'it matters', 'too small to matter', 'not settled', 'not settled']


def test_drivetrain_round_trip(tmp_path):
    d = D.Drivetrain('Bären & Co', 'mehr <Honig>', 'a\n\n - b ', ['c'], [])
    assert d.levers==['a', 'b'] and list(d.missing())==['models']
    assert D.load_drivetrain(d.save(tmp_path/'d.json'))==d
    assert '## Models\n\n*' in d.save(tmp_path/'d.md').read_text(encoding='utf-8')
    assert '<Honig>' not in d._repr_html_() and '&lt;Honig&gt;' in d._repr_html_()
    (tmp_path/'bad.json').write_text(json.dumps([1]))
    with pytest.raises(InputError): D.load_drivetrain(tmp_path/'bad.json')
    with pytest.raises(MissingError): D.load_drivetrain(tmp_path/'none.json')


def test_drivetrain_form_reads_and_hints():
    form = D.drivetrain_form()
    assert form.drivetrain()==D.Drivetrain()
    for box, text in zip(form.children, ['name', 'less waste', 'price\nsize', 'trial', 'demand']): box.value = text
    assert form.drivetrain()==D.Drivetrain('name', 'less waste', ['price', 'size'], ['trial'], ['demand'])
    assert form.children[-1].value=='All five questions have an answer.'


def test_every_plot_returns_its_axes_and_draws_on_the_one_given():
    x, y = C.draw_cities(20, seed=1)
    fit = C.linear_regression(x, y)
    o = D.four_outcomes([[1, 0], [0, 1]], .4)
    t, h = np.linspace(0, 30, 4), np.linspace(0, 100, 3)
    plots = [lambda ax: C.plot_relation(x, y, fit, ax), lambda ax: C.plot_slopes(np.linspace(-1, 1, 50), .5, ax), lambda ax: C.plot_p_values({'a': [.1, .2]}, ax=ax),
             lambda ax: C.plot_intervals([C.slope_interval(fit)], 0, .1, ax), lambda ax: C.plot_power([3, 4], {'a': [.1, .2]}, ax),
             lambda ax: C.plot_climate(t, h, C.climate_r(*np.meshgrid(t, h)), C.practical_effect(), ax),
             lambda ax: H.plot_alone_together(H.simulate_alone_together(3), ax=ax), lambda ax: H.plot_map(np.eye(2), [0, 1], ax),
             lambda ax: H.plot_neighbours(H.simulate_neighbours((0, .1), 20, 20), ax=ax), lambda ax: D.plot_posterior([0, 1], {'a': [0, 1]}, ax),
             lambda ax: D.plot_four_outcomes(o, ax), lambda ax: D.plot_break_even(o, ax), lambda ax: D.plot_drivetrain(D.Drivetrain('a', 'b'), ax)]
    for plot in plots:
        ax = plt.subplots()[1]
        assert plot(ax) is ax and isinstance(ax, Axes)
        ax.figure.canvas.draw()
        assert plot(None) is not ax
        plt.close('all')


def test_imports_neither_torch_nor_fastai():
    code = 'import sys, bearclass.scratch.decisions, bearclass.scratch.hidden; print({"torch", "fastai"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='set()'
