import numpy as np

from merging.visualization import describe_objectives, plot_objectives


def test_every_method_has_a_panel_with_its_own_objective(make_alignment):
    runs = [make_alignment("weight"), make_alignment("straight_through", (0.8, 0.4))]
    figure = plot_objectives(runs)
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]
    assert all(trace.line.shape == "hv" for trace in figure.data)
    np.testing.assert_allclose(figure.data[0].y, (100.25, 410.5, 551.75))
    assert figure.layout.yaxis.title.text == "Sum of inner products"


def test_runs_of_one_method_share_a_panel(make_alignment):
    figure = plot_objectives([make_alignment(), make_alignment(objective=(1.0, 2.0))])
    assert {trace.xaxis for trace in figure.data} == {"x"}


def test_restarts_end_as_short_ticks_beyond_the_last_step(make_alignment):
    figure = plot_objectives([make_alignment(restarts=(551.75, 540.0, 549.5))])
    ends = figure.data[1]
    assert ends.marker.symbol == "line-ew-open"
    np.testing.assert_allclose(ends.y, (551.75, 540.0, 549.5))
    assert (ends.x > 2).all()
    assert (ends.x < figure.layout.xaxis.range[1]).all()


def test_a_run_that_has_only_begun_is_drawn(make_alignment):
    one = make_alignment(objective=(612.5,), converged=False)
    none = make_alignment(objective=(), converged=False)
    assert plot_objectives([one]).data[0].y.tolist() == [612.5]
    assert "612.5 at the start, not converged" in describe_objectives([one])
    assert "no value yet" in [note.text for note in plot_objectives([none]).layout.annotations]
    assert "0 steps" in describe_objectives([none])
    assert len(plot_objectives([]).data) == 0
    assert describe_objectives([]) == "No runs yet, 0 steps."


def test_panels_are_stacked_on_a_phone(make_alignment):
    runs = [make_alignment("weight"), make_alignment("activation")]
    layout = plot_objectives(runs, compact=True).layout
    assert layout.yaxis.domain[0] > layout.yaxis2.domain[1]


def test_the_description_has_both_ends_the_steps_and_the_restarts(make_alignment):
    text = describe_objectives([
        make_alignment(restarts=(551.75, 540.0), converged=False, stopped=True)
    ])
    assert "from 100.25 to 551.75 in 2 steps, stopped." in text
    assert "2 restarts ended between 540 and 551.75" in text
