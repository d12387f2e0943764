"""What stands in each section of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trame.widgets import html
from trame_vuetify.widgets import vuetify3 as v

if TYPE_CHECKING:
    from .app import Viewer

_ROLE_TITLES = {
    "mr": "MR",
    "trus": "TRUS",
    "mr_landmarks": "MR landmarks",
    "trus_landmarks": "TRUS landmarks",
    "targets": "Targets on the MR",
}
_MODES = (
    ("blend", "Opacity"),
    ("flicker", "Flicker"),
    ("rock", "Rock"),
    ("checkerboard", "Checkerboard"),
    ("split", "Split"),
)
_AXES = (
    ("left-right", "left – right"),
    ("posterior-anterior", "back – front"),
    ("inferior-superior", "foot – head"),
)
_DEFORMATION = (("none", "not shown"), ("grid", "grid"), ("arrows", "arrows"))
_OVERLAYS = {
    "none": "no colours",
    "displacement": "displacement (mm)",
    "jacobian": "change of volume (Jacobian)",
    "confidence": "uncertainty (mm)",
}
_SHOWN = (
    ("contours", "Outlines"),
    ("landmarks", "Landmarks"),
    ("vectors", "Error arrows"),
    ("targets", "Targets"),
)
_STAGE_TITLES = (("before", "Before"), ("rigid", "Rigid"), ("deformable", "Deform."))
_LEVELS = "{good: 'success', check: 'warning', poor: 'error', info: 'info'}"
_COMPACT: dict[str, Any] = {"density": "compact", "hide_details": True}


def case_panel(viewer: Viewer) -> None:
    section = viewer.case_section
    _button("Sample case", viewer.action(section.open_sample), icon="mdi-test-tube", disabled="running")
    with v.VBtn(
        "Open scene (.mrb)", block=True, classes="mb-2", prepend_icon="mdi-folder-open", disabled=("running",)
    ):
        _file_input(viewer, "scene", ".mrb")
    if viewer.state.served:
        _select("Result in the served folder", "served_result", "served_results", clearable=True)
        unchosen = "!served_result || running"
        _button("Open result", viewer.action(section.open_served_result), disabled=unchosen)
    for role, title in _ROLE_TITLES.items():
        _file_row(viewer, role, title)
    _button("Load MR and TRUS", viewer.action(section.open_files), icon="mdi-upload", disabled="running")
    with (
        html.Div(v_if=("has_pair && !has_case",)),
        v.VBtnToggle(
            v_model=("pair_shown",), mandatory=True, density="compact", variant="outlined", divided=True
        ),
    ):
        v.VBtn("MR", value="mr", size="small")
        v.VBtn("TRUS", value="trus", size="small")
    with html.Div(v_for="note in case_notes", key="note"):
        v.VAlert("{{ note }}", type="warning", density="compact", classes="mt-2")


def _file_row(viewer: Viewer, role: str, title: str) -> None:
    """A file by upload, or from the served folder where there is one."""
    with html.Div(classes="d-flex align-center mb-1 file-row"):
        with v.VBtn(
            icon="mdi-upload",
            size="x-small",
            variant="tonal",
            classes="mr-2",
            title=f"Upload {title}",
            disabled=("running",),
        ):
            v.VIcon("mdi-upload")
            _file_input(viewer, role, "")
        if viewer.state.served:
            items = "served_volumes" if role in ("mr", "trus") else "served_points"
            _select(title, f"served_{role}", items, clearable=True)
        else:
            html.Span(title, classes="text-body-2")
        html.Span(
            f"{{{{ upload_{role} }}}}", v_if=(f"upload_{role}",), classes="text-caption ml-2 text-truncate"
        )


def _file_input(viewer: Viewer, role: str, accept: str) -> None:
    """The browser's own file input, invisible over its button."""
    done = viewer.server.trigger_name(viewer.action(viewer.case_section.uploaded))
    failed = viewer.server.trigger_name(viewer.messages.show)
    html.Input(
        type="file",
        classes="file-input",
        multiple=role in ("mr", "trus"),
        change=f"window.mrtrus.upload($event.target, '{role}', '{done}', '{failed}')",
        raw_attrs=[f'data-role="{role}"', f'accept="{accept}"', f'aria-label="Upload {role}"'],
    )


def register_panel(viewer: Viewer) -> None:
    section = viewer.registering
    _select("Method", "method", "methods", disabled=("running",))
    v.VCheckbox(
        v_model=("with_confidence",), label="Confidence map (slower)", disabled=("running",), **_COMPACT
    )
    _button(
        "Register",
        viewer.action(section.register),
        icon="mdi-play",
        color="primary",
        disabled="running || !has_pair",
        classes="register-button",
    )
    with html.Div(v_if=("running",)):
        v.VProgressLinear(model_value=("progress",), height=8, rounded=True, color="primary")
        _button("Cancel", viewer.action(section.cancel), icon="mdi-stop", classes="cancel-button mt-2")
    html.Div("{{ progress_text }}", classes="text-caption progress-text", raw_attrs=['role="status"'])


def review_panel(viewer: Viewer) -> None:
    with html.Div(v_if=("has_case",), classes="review-tools"):
        _choice("Compare", "review_mode", _MODES)
        _slider("MR", "review_opacity", shown="review_mode === 'blend'")
        _slider("Squares", "review_squares", low=2, high=24, step=1, shown="review_mode === 'checkerboard'")
        _slider("Position", "review_position", shown="review_mode === 'split'")
        with html.Div(v_if=("review_mode === 'split'",)):
            _choice("Across", "review_axis", _AXES)
        with html.Div(classes="d-flex flex-wrap"):
            for name, title in _SHOWN:
                v.VCheckbox(v_model=(f"review_{name}",), label=title, classes="half", **_COMPACT)
        _choice("Displacement", "review_deformation", _DEFORMATION)
        titles = ", ".join(f"{key}: '{title}'" for key, title in _OVERLAYS.items())
        v.VSelect(
            v_model=("review_overlay",),
            items=(f"overlays.map((key) => ({{value: key, title: ({{{titles}}})[key]}}))",),
            label="Colours",
            classes="mb-2",
            **_COMPACT,
        )
        _slider("Strength", "review_overlay_opacity", shown="review_overlay !== 'none'")
        _legend()
    _nothing("!has_case")


def _legend() -> None:
    with html.Div(v_if=("legend",), classes="legend"):
        html.Div("{{ legend.title }}", classes="text-caption")
        gradient = "{background: 'linear-gradient(to right, ' + legend.colors + ')'}"
        html.Div(classes="legend-colors", style=(gradient,))
        with html.Div(classes="d-flex justify-space-between text-caption"):
            html.Span("{{ legend.low }}")
            html.Span("{{ legend.high }}")


def trust_panel(viewer: Viewer) -> None:
    with html.Div(v_if=("indicator",), classes="indicator"):
        v.VAlert(
            "{{ indicator.headline }}",
            type=(f"({_LEVELS})[indicator.level]",),
            density="compact",
            variant="tonal",
            classes="mb-1 text-body-2",
        )
        with html.Ul(classes="reasons text-caption"):
            html.Li("{{ finding.text }}", v_for="finding in indicator.findings", key="finding.text")
    _stage_table(
        "landmark_rows",
        "Landmark error (mm)",
        click=(viewer.action(viewer.review.go_to_landmark), "[row.name]"),
        title_of_row="Go to this landmark",
    )
    _stage_table("measure_rows", "Measure")
    _target_table(viewer)
    _nothing("!has_case")


def _stage_table(
    rows: str, title: str, *, click: tuple[Callable[..., None], str] | None = None, title_of_row: str = ""
) -> None:
    with v.VTable(v_if=(f"{rows}.length",), density="compact", classes=f"{rows} small-table mt-2"):
        with html.Thead(), html.Tr():
            html.Th(title)
            for stage, name in _STAGE_TITLES:
                html.Th(name, v_if=(f"stages.includes('{stage}')",), classes="text-right")
        with html.Tbody():
            act: dict[str, Any] = {"click": click, "style": "cursor: pointer"} if click else {}
            with html.Tr(v_for=f"row in {rows}", key="row.name", title=title_of_row, **act):
                html.Td("{{ row.name }}")
                for stage, _ in _STAGE_TITLES:
                    html.Td(
                        f"{{{{ row['{stage}'] }}}}",
                        v_if=(f"stages.includes('{stage}')",),
                        classes=(f"'text-right' + (review_stage === '{stage}' ? ' font-weight-bold' : '')",),
                    )


def _target_table(viewer: Viewer) -> None:
    with v.VTable(v_if=("target_rows.length",), density="compact", classes="target_rows small-table mt-2"):
        with html.Thead(), html.Tr():
            for title in ("Target", "Side", "Third", "Capsule (mm)", ""):
                html.Th(title)
        go = (viewer.action(viewer.review.go_to_target), "[row.point]")
        with html.Tbody(), html.Tr(v_for="row in target_rows", key="row.name", click=go):
            for name in ("name", "side", "third", "capsule"):
                html.Td(f"{{{{ row.{name} }}}}")
            with html.Td():
                v.VBtn(
                    "{{ row.moved }} mm ↺",
                    v_if=("row.moved",),
                    size="x-small",
                    title="Put this target back",
                    classes="put-back",
                    click=(viewer.action(viewer.correct.reset_target), "[row.point]"),
                )


def correct_panel(viewer: Viewer) -> None:
    section = viewer.correct
    with html.Div(v_if=("has_case && !editing",)):
        for image in ("mr", "trus"):
            _button(
                f"Edit the {image.upper()} gland",
                viewer.action(lambda image=image: section.edit(image)),
                icon="mdi-brush",
                disabled="running",
                classes=f"edit-{image}",
            )
        v.VCheckbox(
            v_model=("move_targets",), v_if=("target_rows.length",), label="Targets may be moved", **_COMPACT
        )
        v.VAlert(
            "Changed since this result: {{ edited.join(' and ') }} gland. Register again.",
            v_if=("edited.length",),
            type="info",
            density="compact",
            classes="mb-2 edited-note",
        )
        _button(
            "Register again",
            viewer.action(viewer.registering.register_again),
            icon="mdi-replay",
            color="primary",
            disabled="running",
            classes="again-button",
        )
        _select("Version", "version", "versions", disabled=("running",))
    with html.Div(v_if=("editing",), classes="edit-tools"):
        _choice("Tool", "tool", (("paint", "Paint"), ("erase", "Erase"), ("none", "Look")))
        _slider("Brush (mm)", "brush_mm", low=1, high=30, step=1)
        v.VCheckbox(v_model=("brush_sphere",), label="Brush is a ball", **_COMPACT)
        _button("Undo stroke", viewer.action(section.undo_stroke), icon="mdi-undo")
        _button("Done", viewer.action(section.done), icon="mdi-check", color="primary", classes="done-button")
    _nothing("!has_case")


def export_panel(viewer: Viewer) -> None:
    failed = viewer.server.trigger_name(viewer.messages.show)
    v.VBtn(
        "{{ offer.title }}",
        v_for="offer in offers",
        key="offer.key",
        block=True,
        classes="mb-2 export-button",
        prepend_icon="mdi-download",
        click=f"window.mrtrus.download(offer.key, '{failed}')",
    )
    _nothing("!offers.length")


def _nothing(when: str) -> None:
    html.Div("There is no result yet.", v_if=(when,), classes="text-caption text-medium-emphasis")


def _button(
    title: str, click: Callable[..., Any], *, icon: str | None = None, disabled: str = "false", **options: Any
) -> None:
    options["classes"] = f"mb-2 {options.get('classes', '')}"
    v.VBtn(title, click=click, block=True, prepend_icon=icon, disabled=(disabled,), **options)


def _select(label: str, model: str, items: str, **options: Any) -> None:
    v.VSelect(v_model=(model,), items=(items,), label=label, classes="mb-2", **_COMPACT, **options)


def _choice(label: str, model: str, choices: tuple[tuple[str, str], ...]) -> None:
    items = [{"value": value, "title": title} for value, title in choices]
    v.VSelect(v_model=(model,), items=(f"{model}_items", items), label=label, classes="mb-2", **_COMPACT)


def _slider(
    label: str,
    model: str,
    *,
    low: float = 0,
    high: float = 1,
    step: float = 0.01,
    shown: str = "true",
) -> None:
    v.VSlider(
        v_model=(model,),
        v_if=(shown,),
        min=low,
        max=high,
        step=step,
        label=label,
        classes=f"{model} mb-2",
        raw_attrs=[f'aria-label="{label}"'],
        **_COMPACT,
    )
