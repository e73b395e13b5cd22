"""What is said of a long work while it goes on."""

from wertune.base.steps import Steps, clips_are_done, heard_by, minutes


def test_a_line_every_quarter_of_a_minute_says_what_is_done_and_left() -> None:
    said: list[str] = []
    clock = iter((100.0, 102.0, 110.0, 120.0, 130.0, 140.0))
    with heard_by(Steps("test and retention", 200, said.append, lambda: next(clock))):
        for _ in range(5):
            clips_are_done(20)
    clips_are_done(1000)  # nobody listens any more
    assert said == [
        "  test and retention: 60 of 200 clips, about 0:47 left",
        "  test and retention: 100 of 200 clips, about 0:40 left",
    ]


def test_more_pieces_than_clips_are_all_of_them() -> None:
    said: list[str] = []
    now = 0.0
    steps = Steps("battery", 10, said.append, lambda: now)
    now = 60.0
    steps(15)
    now = 120.0
    steps(15)
    assert said == ["  battery: 10 of 10 clips, about 0:00 left"]


def test_hours_are_minutes() -> None:
    assert [minutes(s) for s in (0.4, 65, 3600)] == ["0:00", "1:05", "60:00"]
