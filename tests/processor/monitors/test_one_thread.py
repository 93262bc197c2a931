"""What runs in the background takes one core, whatever the process may use."""

from threadpoolctl import threadpool_info, threadpool_limits

from mlspan_processor.monitors.one_thread import one_thread


def threads() -> set[int]:
    """How many threads each of the loaded libraries uses."""
    return {int(one["num_threads"]) for one in threadpool_info()}


def test_libraries_are_held_to_one_thread_and_let_go() -> None:
    """Also those that the work needs and nobody has loaded before; an ImportError costs the limit alone."""
    assert one_thread(threads, ("sklearn.ensemble",)) == {1}
    with threadpool_limits(limits=2):
        before = threads()
        assert one_thread(threads) == {1}
        assert threads() == before
    assert one_thread(lambda: "done", ("no_such_library",)) == "done"
