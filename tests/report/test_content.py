from clearsight.report.content import ReportContent


def test_the_first_split_is_shown_in_full(make_content):
    content = make_content()
    assert content.main is not None
    assert content.main[0] == "test"
    assert ReportContent(title="empty").main is None


def test_a_recipe_that_cannot_be_read_is_empty():
    assert ReportContent(title="x", recipe_yaml="a: [1").recipe() == {}
    assert ReportContent(title="x", recipe_yaml="just text").recipe() == {}
    assert ReportContent(title="x", recipe_yaml="model:\n  name: light\n").recipe() == {"model": {"name": "light"}}
