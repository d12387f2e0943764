"""Four Slicer views of one scene: axial, sagittal, coronal and 3-D, all at once or one of them large."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition
from trame_vuetify.widgets.vuetify3 import VBtn, VSlider
from vtkmodules.vtkCommonCore import vtkCommand

ALL = "all"
# Slicer's own colours and names of its slice views.
_DEFINITIONS = {
    "axial": ViewLayoutDefinition.axial_view(),
    "sagittal": ViewLayoutDefinition.sagittal_view(),
    "coronal": ViewLayoutDefinition.coronal_view(),
    "3-D": ViewLayoutDefinition.threed_view(background_color="#000000"),
}
_TITLES = {definition.singleton_tag: title for title, definition in _DEFINITIONS.items()}
_COLORS = {"axial": "#F34A33", "sagittal": "#EFD64D", "coronal": "#6DAD4A", "3-D": "#9aa5ff"}
# One quality for moving and still pictures: a second, finer picture of every frame costs as much again.
_JPEG_QUALITY = 90
_FRAMES_PER_S = 30.0
_MOUSE_INTERVAL_S = 0.03
_SAME_PLACE_MM = 1e-3


class Views:
    """Makes the views and their places on the page."""

    def __init__(self, server: Any, app: SlicerApp) -> None:
        self._app, self._server = app, server
        register_rca_factories(
            app.view_manager,
            server,
            slice_view_ui_f=self._slice_ui,
            three_d_view_ui_f=self._title_ui,
            target_fps=_FRAMES_PER_S,
            blur_fps=_FRAMES_PER_S,
            interactive_quality=_JPEG_QUALITY,
            rca_event_throttle_s=_MOUSE_INTERVAL_S,
        )
        self._manager = LayoutManager(app.scene, app.view_manager, server)
        self._manager.register_layout_dict(_layouts(), lazy_initialization=True)
        self._manager.create_layout_views_if_needed(ALL)
        self._manager.set_layout(ALL)
        for view in app.view_manager.get_views():
            _repair(view)
        for view in app.view_manager.get_slice_views():
            _fit_when_resized(view)

    def place(self, page: Any) -> None:
        """Put the grid of views where the page is being written."""
        self._manager.initialize_layout_grid(page)

    def toggle(self, title: str) -> None:
        """Show one view large, or all of them again."""
        self._manager.set_layout(title if self._manager.layout_id == ALL else ALL)

    def fit(self) -> None:
        """Show the whole of what is loaded in every view."""
        for view in self._app.view_manager.get_views():
            view.fit_view_to_content()
            view.schedule_render()

    def draw(self) -> None:
        """Ask the slice views for a new picture, which they do not notice themselves that they need.

        The 3-D view does, and is slow to draw.
        """
        for view in self._app.view_manager.get_slice_views():
            view.schedule_render()

    def _title_ui(self, server: Any, view_id: str, view: Any) -> None:
        title = _TITLES[view.get_singleton_tag()]
        with html.Div(classes="view-bar"):
            html.Span(title, classes="view-title", style=f"color: {_COLORS[title]}")
            _button("mdi-arrow-expand", f"Show {title} large, or all views", lambda: self.toggle(title))
            _button("mdi-fit-to-screen-outline", f"Fit {title}", view.reset_view)

    def _slice_ui(self, server: Any, view_id: str, view: Any) -> None:
        self._title_ui(server, view_id, view)
        title = _TITLES[view.get_singleton_tag()]
        names = [f"slice_{title}_{part}" for part in ("value", "min", "max", "step")]
        _follow_offset(server.state, names, view)
        value, low, high, step = names
        VSlider(
            v_model=(value,),
            min=(low,),
            max=(high,),
            step=(step,),
            hide_details=True,
            density="compact",
            theme="dark",
            classes="view-slider",
            raw_attrs=[f'aria-label="Position of the {title} slice"'],
        )


def _button(icon: str, label: str, click: Any) -> None:
    VBtn(
        icon=icon,
        size="x-small",
        variant="text",
        color="white",
        click=click,
        title=label,
        raw_attrs=[f'aria-label="{label}"'],
    )


def _follow_offset(state: Any, names: list[str], view: Any) -> None:
    """Keep a slider and the position of a slice the same."""
    value = names[0]

    def show(*_: Any) -> None:
        low, high = view.get_slice_range()
        now = (view.get_slice_value(), low, high, view.get_slice_step())
        with state:
            state.update(dict(zip(names, now, strict=True)))

    def move(**changed: Any) -> None:
        if abs(float(changed[value]) - view.get_slice_value()) > _SAME_PLACE_MM:
            view.set_slice_value(float(changed[value]))

    show()
    view.modified.connect(show)
    state.change(value)(move)


def _fit_when_resized(view: Any) -> None:
    """A view that the browser gives another size shows the whole image again, at the same position."""

    def fit(*_: Any) -> None:
        position = view.get_slice_value()
        view.fit_view_to_content()
        view.set_slice_value(position)

    view.interactor().AddObserver(vtkCommand.WindowResizeEvent, fit)


def _layouts() -> dict[str, Layout]:
    rows = (("axial", "3-D"), ("coronal", "sagittal"))
    grid = Layout(
        LayoutDirection.Vertical,
        [Layout(LayoutDirection.Horizontal, [_DEFINITIONS[title] for title in row]) for row in rows],
    )
    single = {
        title: Layout(LayoutDirection.Vertical, [definition]) for title, definition in _DEFINITIONS.items()
    }
    return {ALL: grid, **single}


def _repair(view: Any) -> None:
    """Two defects of trame-slicer 2.0: translucent surfaces vanish, and images cover filled segments."""
    view.render_window().SetMultiSamples(0)
    manager = getattr(view, "_render_manager", None)
    if manager is not None:
        view.first_renderer().AddViewProp(manager.image_actor)
