"""How settings, times and counts are written, wherever a person reads them. Loads nothing."""

from collections.abc import Mapping


def plain(value: object) -> str:
    """A value as a person writes it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings_text(settings: Mapping[str, object]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{name}={plain(value)}" for name, value in settings.items())


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 trial, 2 trials; and of 2 studies, whose plural has to be said."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
