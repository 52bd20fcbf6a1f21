"""Which names the reference shows, and where short public ones (``inna_tune.INNA``) lead: ``inna_tune.optim.INNA``."""

import re

from sphinx.application import Sphinx

import inna_tune
import inna_tune.optim
import inna_tune.study


def resolve(app, env, node, contnode):
    target = node.get("reftarget", "")
    package, _, name = target.removeprefix("~").rpartition(".")
    homes = inna_tune._HOMES
    if node.get("refdomain") != "py" or package not in {"", "inna_tune"} or name not in homes:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"{homes[name]}.{name}", node, contnode
    )


def skip(app, what, name, obj, skip, options):
    # What scikit-learn wrote is explained there, with references that only its own site resolves.
    foreign = (getattr(obj, "__module__", None) or "").startswith("sklearn.")
    return True if foreign or re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Sphinx):
    for room in (inna_tune.optim, inna_tune.study):
        for name in room.__all__:
            # Imported on first use, and autodoc looks only at what is there.
            setattr(room, name, getattr(room, name))
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
