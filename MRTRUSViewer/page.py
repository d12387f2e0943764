"""The page: a bar above, the sections beside, the views in the middle, and the dialogs over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import html
from trame_vuetify.widgets import vuetify3 as v

from .panels import case_panel, correct_panel, export_panel, register_panel, review_panel, trust_panel

if TYPE_CHECKING:
    from .app import Viewer

TITLE = "MRTRUS Registration"
NOTICE = "Research use only: not a medical device."
_STAGES = (("before", "Before"), ("rigid", "Rigid"), ("deformable", "Deformable"))
_KEYS = (
    ("1 2 3", "before, rigid, deformable"),
    ("b f r c s", "blend, flicker, rock, checkerboard, split"),
    ("[ ]", "less, more of the MR"),
    ("o l v", "outlines, landmarks, error arrows"),
    ("g a", "displacement as grid, as arrows"),
    ("d j", "length of displacement, Jacobian"),
    ("p", "show or hide this panel"),
    ("t", "light or dark"),
    ("?", "this help"),
)
_MOUSE = "Wheel: slice. Right button: zoom. Middle button: move. Shift and move: all views go there."
_PANELS = (
    ("case", "Case", case_panel),
    ("register", "Register", register_panel),
    ("review", "Review", review_panel),
    ("trust", "Landmarks and trust", trust_panel),
    ("correct", "Correct", correct_panel),
    ("export", "Export", export_panel),
)
_PANEL_PX = 330


def build_page(viewer: Viewer) -> None:
    """Describe the whole page to trame."""
    viewer.state.update(
        {
            "trame__title": TITLE,
            "trame__favicon": "mrtrus/icon.svg",
            "open_panels": ["case", "register", "review", "trust"],
        }
    )
    with VAppLayout(viewer.server, theme=("dark ? 'dark' : 'light'",)) as page:
        _bar(viewer)
        _drawer(viewer)
        with v.VMain(style="height: 100vh; background: black;"):
            viewer.views.place(page)
        _dialogs(viewer)


def _bar(viewer: Viewer) -> None:
    with v.VAppBar(density="compact", flat=True, border=True):
        _icon("mdi-menu", "Show or hide the panel", "panel_shown = !panel_shown")
        html.Span(TITLE, classes="bar-title text-no-wrap")
        html.Span("{{ case_name }}", classes="bar-case text-medium-emphasis text-truncate mx-3")
        v.VSpacer()
        with v.VBtnToggle(
            v_model=("review_stage",),
            mandatory=True,
            density="compact",
            variant="outlined",
            divided=True,
            disabled=("!has_case || !!editing",),
            color="primary",
        ):
            for stage, title in _STAGES:
                v.VBtn(title, value=stage, disabled=(f"!stages.includes('{stage}')",), size="small")
        v.VSpacer()
        html.Span(NOTICE, classes="bar-notice text-caption text-medium-emphasis text-no-wrap mr-2")
        _icon("mdi-keyboard-outline", "Keyboard", "help_shown = true")
        _icon("mdi-theme-light-dark", "Light or dark", "dark = !dark")


def _icon(icon: str, label: str, click: Any) -> None:
    v.VBtn(icon=icon, size="small", click=click, title=label, raw_attrs=[f'aria-label="{label}"'])


def _drawer(viewer: Viewer) -> None:
    with (
        v.VNavigationDrawer(v_model=("panel_shown",), width=_PANEL_PX, mobile_breakpoint=("900",)),
        v.VExpansionPanels(v_model=("open_panels",), multiple=True, variant="accordion", flat=True),
    ):
        for key, title, fill in _PANELS:
            with v.VExpansionPanel(value=key, classes=f"panel-{key}"):
                v.VExpansionPanelTitle(title, classes="text-subtitle-2")
                with v.VExpansionPanelText(eager=True):
                    fill(viewer)


def _dialogs(viewer: Viewer) -> None:
    with (
        v.VDialog(v_model=("error_shown",), max_width=520),
        v.VCard(title="This did not work", classes="error-dialog", raw_attrs=['role="alertdialog"']),
    ):
        v.VCardText("{{ error_text }}", classes="error-text")
        with v.VCardActions():
            v.VSpacer()
            v.VBtn("Close", click="error_shown = false", color="primary", autofocus=True)
    with v.VDialog(v_model=("help_shown",), max_width=480), v.VCard(title="Keyboard", classes="help-dialog"):
        with v.VCardText(), v.VTable(density="compact"), html.Tbody():
            for keys, meaning in _KEYS:
                with html.Tr():
                    html.Td(keys, style="white-space: nowrap; font-family: monospace;")
                    html.Td(meaning)
        v.VCardText(_MOUSE)
        with v.VCardActions():
            v.VSpacer()
            v.VBtn("Close", click="help_shown = false", color="primary")
