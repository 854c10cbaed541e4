//! Shapes, and painting them: outlines with a rim that shows on any background, translucent fills,
//! tags.
//!
//! A picture is painted in bands of rows, because the painter works on four bytes a pixel: the extra
//! memory is a few MiB whatever the picture's size. Never decides what is drawn where.

use image::RgbImage;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8,
    Rect, Stroke, Transform,
};

use super::labels::Area;
use super::palette::Rgb;
use super::places::{Kind, Place};

/// Pixels painted at a time.
const BAND_PIXELS: u32 = 1 << 20;
/// Opacity of the rim beside an outline.
const RIM_OPACITY: f32 = 0.45;
/// Opacity of an object's fill.
const FILL_OPACITY: f32 = 0.28;
/// Corner radius of a tag in ems of its text.
const TAG_RADIUS: f32 = 0.22;
/// Share of a corner's radius at which a cubic's control point makes a circular arc.
const ARC: f32 = 0.552_284_8;

/// A form in one colour.
pub(super) struct Shape {
    form: Form,
    color: Color,
}

enum Form {
    /// Anything, with smooth edges.
    Path(Path),
    /// An upright rectangle on whole pixels, whose edges stay sharp.
    Bar(Rect),
}

impl Shape {
    pub(super) fn opaque(path: Path, color: Rgb) -> Self {
        Self::new(Form::Path(path), color, 1.0)
    }

    fn new(form: Form, color: Rgb, opacity: f32) -> Self {
        let [r, g, b] = color.0;
        let mut color = Color::from_rgba8(r, g, b, u8::MAX);
        color.set_alpha(opacity);
        Self { form, color }
    }

    /// First and last row that the shape touches.
    fn rows(&self) -> (f32, f32) {
        let bounds = match &self.form {
            Form::Path(path) => path.bounds(),
            Form::Bar(bar) => *bar,
        };
        (bounds.top(), bounds.bottom())
    }
}

/// Adds the fill of an object.
pub(super) fn fill(place: &Place<'_>, shapes: &mut Vec<Shape>) {
    let path = rings(place);
    shapes.extend(path.map(|path| Shape::new(Form::Path(path), place.color, FILL_OPACITY)));
}

/// Adds the outline of a place, `stroke` pixels wide, with a rim of `rim` pixels on either side.
pub(super) fn outline(
    place: &Place<'_>,
    stroke: u16,
    rim: u16,
    size: (u32, u32),
    shapes: &mut Vec<Shape>,
) {
    let ink = place.color.ink();
    if place.kind == Kind::Box {
        let frame = frame(place, stroke, rim, size);
        let (stroke, rim) = (f32::from(stroke), f32::from(rim));
        let rims = bars(frame, rim, 0.0).chain(bars(frame, -stroke, -stroke - rim));
        shapes.extend(rims.map(|bar| Shape::new(Form::Bar(bar), ink, RIM_OPACITY)));
        let line = bars(frame, 0.0, -stroke);
        shapes.extend(line.map(|bar| Shape::new(Form::Bar(bar), place.color, 1.0)));
        return;
    }
    let Some(path) = rings(place) else {
        return;
    };
    let stroked = |width: u16| {
        let stroke = Stroke {
            width: f32::from(width),
            line_join: LineJoin::Round,
            line_cap: LineCap::Round,
            ..Stroke::default()
        };
        path.stroke(&stroke, 1.0)
    };
    let under = stroked(stroke + 2 * rim);
    shapes.extend(under.map(|path| Shape::new(Form::Path(path), ink, RIM_OPACITY)));
    shapes.extend(stroked(stroke).map(|path| Shape::opaque(path, place.color)));
}

/// Adds the rounded ground of a tag.
pub(super) fn tag(area: &Area, color: Rgb, px: f32, shapes: &mut Vec<Shape>) {
    let sides = [area.left, area.top, area.right, area.bottom].map(|side| side as f32);
    let path = rounded(sides, px * TAG_RADIUS);
    shapes.extend(path.map(|path| Shape::opaque(path, color)));
}

fn rings(place: &Place<'_>) -> Option<Path> {
    let mut path = PathBuilder::new();
    for ring in &place.rings {
        let mut points = ring.iter();
        if let Some(first) = points.next() {
            path.move_to(first.x, first.y);
            points.for_each(|point| path.line_to(point.x, point.y));
            path.close();
        }
    }
    path.finish()
}

/// Outer edge of a box's line on whole pixels. The line lies on the box's edge, but wholly inside
/// the picture: a box around everything is seen. Boxes at one place are drawn one inside the other,
/// as long as there is an inside.
fn frame(place: &Place<'_>, stroke: u16, rim: u16, (width, height): (u32, u32)) -> [f32; 4] {
    let half = f32::from(stroke) / 2.0;
    let bounds = &place.bounds;
    let [left, top, right, bottom] = [
        (bounds.left - half).round().max(0.0),
        (bounds.top - half).round().max(0.0),
        (bounds.right + half).round().min(width as f32),
        (bounds.bottom + half).round().min(height as f32),
    ];
    let line = f32::from(stroke + rim);
    let depth = (right - left).min(bottom - top) / 2.0 - line;
    let inset = (f32::from(place.same_before) * line)
        .min(depth.floor())
        .max(0.0);
    [left + inset, top + inset, right - inset, bottom - inset]
}

/// The ring between the rectangles that lie `from` and `to` pixels outside the given one, `from`
/// being the outer, as four bars. What has no extent is left out.
fn bars(frame: [f32; 4], from: f32, to: f32) -> impl Iterator<Item = Rect> {
    let [left, top, right, bottom] = frame;
    let (outer_left, outer_right) = (left - from, right + from);
    let (outer_top, outer_bottom) = (top - from, bottom + from);
    // In a box narrower than its lines the inner edges would cross.
    let inner_top = (top - to).min(outer_bottom);
    let inner_bottom = (bottom + to).max(inner_top);
    let inner_left = (left - to).min(outer_right);
    let inner_right = (right + to).max(inner_left);
    [
        (outer_left, outer_top, outer_right, inner_top),
        (outer_left, inner_bottom, outer_right, outer_bottom),
        (outer_left, inner_top, inner_left, inner_bottom),
        (inner_right, inner_top, outer_right, inner_bottom),
    ]
    .into_iter()
    .filter_map(|(left, top, right, bottom)| Rect::from_ltrb(left, top, right, bottom))
}

fn rounded([left, top, right, bottom]: [f32; 4], radius: f32) -> Option<Path> {
    let bend = radius * (1.0 - ARC);
    let mut path = PathBuilder::new();
    path.move_to(left + radius, top);
    path.line_to(right - radius, top);
    path.cubic_to(right - bend, top, right, top + bend, right, top + radius);
    path.line_to(right, bottom - radius);
    path.cubic_to(
        right,
        bottom - bend,
        right - bend,
        bottom,
        right - radius,
        bottom,
    );
    path.line_to(left + radius, bottom);
    path.cubic_to(
        left + bend,
        bottom,
        left,
        bottom - bend,
        left,
        bottom - radius,
    );
    path.line_to(left, top + radius);
    path.cubic_to(left, top + bend, left + bend, top, left + radius, top);
    path.close();
    path.finish()
}

/// Paints the shapes in their order.
pub(super) fn paint(picture: &mut RgbImage, shapes: &[Shape]) {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 || shapes.is_empty() {
        return;
    }
    let rows = (BAND_PIXELS / width).clamp(1, height);
    let band_bytes = width as usize * rows as usize * 3;
    let bands = picture.as_flat_samples_mut().samples.chunks_mut(band_bytes);
    for (index, band) in bands.enumerate() {
        let rows_here = (band.len() / (width as usize * 3)) as u32;
        if let Some(mut canvas) = Pixmap::new(width, rows_here) {
            paint_band(band, &mut canvas, index as f32 * rows as f32, shapes);
        }
    }
}

fn paint_band(band: &mut [u8], canvas: &mut Pixmap, top: f32, shapes: &[Shape]) {
    let bottom = top + canvas.height() as f32;
    for (rgb, pixel) in band.as_chunks::<3>().0.iter().zip(canvas.pixels_mut()) {
        let [r, g, b] = *rgb;
        if let Some(color) = PremultipliedColorU8::from_rgba(r, g, b, u8::MAX) {
            *pixel = color;
        }
    }
    for shape in shapes {
        let (first, last) = shape.rows();
        if last < top || first > bottom {
            continue;
        }
        let mut paint = Paint::default();
        paint.set_color(shape.color);
        match &shape.form {
            Form::Path(path) => {
                let shift = Transform::from_translate(0.0, -top);
                canvas.fill_path(path, &paint, FillRule::Winding, shift, None);
            }
            Form::Bar(bar) => {
                paint.anti_alias = false;
                // The painter has a short way for rectangles that are not transformed.
                if let Some(bar) =
                    Rect::from_ltrb(bar.left(), bar.top() - top, bar.right(), bar.bottom() - top)
                {
                    canvas.fill_rect(bar, &paint, Transform::identity(), None);
                }
            }
        }
    }
    for (rgb, pixel) in band.as_chunks_mut::<3>().0.iter_mut().zip(canvas.pixels()) {
        *rgb = [pixel.red(), pixel.green(), pixel.blue()];
    }
}
