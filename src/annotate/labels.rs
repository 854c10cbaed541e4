//! Where the labels go: a tag for each place, beside it and clear of the other tags.
//!
//! A tag tries the row above its box, the top inside, the row below, then rows further in and out;
//! in each row it slides along the box past the tags in its way. A line of text is to stay readable,
//! so its tag first looks for a spot around it that covers no other line. A tag without room is left
//! out: two that cover each other tell less than the outline's colour. Since tags never overlap, a
//! grid cell holds few of them, and every search stops after a fixed number of spots: the cost grows
//! with the number of labels only. Whole pixels throughout. Knows nothing of fonts and colours.

/// Room beside the text in ems.
const SIDE_PADDING: f32 = 0.4;
/// Height of a tag in ems of its text.
const TAG_HEIGHT: f32 = 1.36;
/// Base line below the top of a tag, in ems of its text.
const BASE_LINE: f32 = 1.0;
/// Room between two tags in ems; at least a pixel.
const GAP: f32 = 0.09;
/// Spots tried in each direction along a row.
const SLIDES: usize = 12;
/// Rows tried further into the box, and further above and below it.
const FURTHER_ROWS: i32 = 4;
/// Lines of text that a grid cell remembers; more than this overlap, and nothing is left to spare.
const LINES_PER_CELL: usize = 16;

/// A rectangle on whole pixels; `right` and `bottom` lie outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Area {
    fn touches(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn grown(&self, by: i32) -> Self {
        Self {
            left: self.left - by,
            top: self.top - by,
            right: self.right + by,
            bottom: self.bottom + by,
        }
    }
}

/// What a tag belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    /// The outer edge of its outline.
    pub(super) area: Area,
    /// Where the tag would like to be.
    pub(super) side: Side,
}

/// Where a tag would like to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Starting at the box's left edge.
    LeftEdge,
    /// Centred on this column.
    Center(i32),
    /// Around a line of text, on no other line.
    Beside,
}

/// Width in pixels that a text may have in a picture.
pub(super) fn text_width(picture_width: u32, px: f32) -> f32 {
    (picture_width as f32 - 2.0 * (SIDE_PADDING * px).ceil()).floor()
}

/// Width and height in pixels of the tag around a text.
pub(super) fn tag_size(text_width: f32, px: f32) -> (i32, i32) {
    let width = text_width.ceil() + 2.0 * (SIDE_PADDING * px).ceil();
    (width as i32, (TAG_HEIGHT * px).round() as i32)
}

/// Where the text of a tag starts: left end and base line.
pub(super) fn text_origin(tag: &Area, px: f32) -> (f32, f32) {
    let left = tag.left as f32 + (SIDE_PADDING * px).ceil();
    (left, tag.top as f32 + (BASE_LINE * px).round())
}

/// What stands in a grid cell.
#[derive(Clone, Default)]
struct Cell {
    tags: Vec<Area>,
    lines: Vec<Area>,
}

/// Gives tags their spots, one after the other.
pub(super) struct Placer {
    width: i32,
    height: i32,
    /// Pixels that stay free between two tags.
    gap: i32,
    /// Side of a grid cell in pixels.
    cell: i32,
    columns: i32,
    cells: Vec<Cell>,
}

impl Placer {
    /// For a picture of this size with labels of about `px` pixels an em.
    pub(super) fn new(width: u32, height: u32, px: f32) -> Self {
        let signed = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
        let (width, height) = (signed(width), signed(height));
        let cell = ((3.0 * TAG_HEIGHT * px) as i32).max(1);
        let columns = width / cell + 1;
        let count = columns as usize * (height / cell + 1) as usize;
        Self {
            width,
            height,
            gap: ((GAP * px).round() as i32).max(1),
            cell,
            columns,
            cells: vec![Cell::default(); count],
        }
    }

    /// Remembers a line of text that tags should not cover.
    pub(super) fn spare(&mut self, line: Area) {
        for index in self.cells_of(&line) {
            if let Some(cell) = self.cells.get_mut(index)
                && cell.lines.len() < LINES_PER_CELL
            {
                cell.lines.push(line);
            }
        }
    }

    /// A spot for a tag of this size that covers no other tag, or `None` where there is no room.
    pub(super) fn place(&mut self, anchor: &Anchor, size: (i32, i32)) -> Option<Area> {
        let (width, height) = size;
        if width > self.width || height > self.height {
            return None;
        }
        let area = self.beside(anchor, size).or_else(|| {
            rows(&anchor.area, height, self.gap)
                .filter(|top| (0..=self.height - height).contains(top))
                .find_map(|top| self.free_in_row(anchor, top, size))
        })?;
        for index in self.cells_of(&area) {
            if let Some(cell) = self.cells.get_mut(index) {
                cell.tags.push(area);
            }
        }
        Some(area)
    }

    /// For a line of text, the first spot above, right, below or left that covers no other line.
    fn beside(&self, anchor: &Anchor, (width, height): (i32, i32)) -> Option<Area> {
        let Side::Beside = anchor.side else {
            return None;
        };
        let Area {
            left,
            top,
            right,
            bottom,
        } = anchor.area;
        let middle = top + (bottom - top - height) / 2;
        let corners = [
            (left, top - height),
            (right, middle),
            (left, bottom),
            (left - width, middle),
        ];
        corners
            .into_iter()
            .map(|(left, top)| Area {
                left,
                top,
                right: left + width,
                bottom: top + height,
            })
            .find(|area| {
                let is_inside = area.left >= 0
                    && area.top >= 0
                    && area.right <= self.width
                    && area.bottom <= self.height;
                let covers_line = || {
                    self.near(area)
                        .flat_map(|cell| &cell.lines)
                        .any(|line| line.touches(area))
                };
                is_inside && !covers_line() && self.way_past(area, true).is_none()
            })
    }

    /// The first free spot of a row: from where the tag belongs to the right, then to the left.
    fn free_in_row(&self, anchor: &Anchor, top: i32, (width, height): (i32, i32)) -> Option<Area> {
        let last = self.width - width;
        let start = match anchor.side {
            Side::LeftEdge | Side::Beside => anchor.area.left,
            Side::Center(column) => column - width / 2,
        }
        .clamp(0, last);
        // A tag that no longer stands at its box would seem to belong to another.
        let leftmost = start.min(anchor.area.left - width + 1).max(0);
        let rightmost = start.max(anchor.area.right - 1).min(last);
        for is_rightward in [true, false] {
            let mut left = start;
            for _ in 0..SLIDES {
                let area = Area {
                    left,
                    top,
                    right: left + width,
                    bottom: top + height,
                };
                let Some(next) = self.way_past(&area, is_rightward) else {
                    return Some(area);
                };
                left = if is_rightward { next } else { next - width };
                if !(leftmost..=rightmost).contains(&left) {
                    break;
                }
            }
        }
        None
    }

    /// The column past all tags that an area would cover or touch; `None` when there are none.
    fn way_past(&self, area: &Area, is_rightward: bool) -> Option<i32> {
        let grown = area.grown(self.gap);
        let tags = self.near(&grown).flat_map(|cell| &cell.tags);
        let in_the_way = tags.filter(|tag| tag.touches(&grown));
        if is_rightward {
            in_the_way.map(|tag| tag.right + self.gap).max()
        } else {
            in_the_way.map(|tag| tag.left - self.gap).min()
        }
    }

    fn near(&self, area: &Area) -> impl Iterator<Item = &Cell> {
        self.cells_of(area)
            .filter_map(|index| self.cells.get(index))
    }

    fn cells_of(&self, area: &Area) -> impl Iterator<Item = usize> + use<> {
        let (cell, columns) = (self.cell, self.columns);
        let index = move |at: i32, end: i32| at.clamp(0, end - 1) / cell;
        let xs = index(area.left, self.width)..=index(area.right, self.width);
        let ys = index(area.top, self.height)..=index(area.bottom, self.height);
        ys.flat_map(move |y| xs.clone().map(move |x| (y * columns + x) as usize))
    }
}

/// Upper edges of the rows that a tag of this height may stand in, best first.
fn rows(anchor: &Area, height: i32, gap: i32) -> impl Iterator<Item = i32> {
    let Area { top, bottom, .. } = *anchor;
    let near = [top - height, top.max(0), bottom, bottom - height];
    let inside = (1..=FURTHER_ROWS)
        .map(move |row| top.max(0) + row * (height + gap))
        .filter(move |row| row + height <= bottom);
    let outside = (1..=FURTHER_ROWS).flat_map(move |row| {
        let away = row * (height + gap);
        [top - height - away, bottom + away]
    });
    near.into_iter().chain(inside).chain(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: (i32, i32) = (60, 20);

    fn anchor(left: i32, top: i32, right: i32, bottom: i32) -> Anchor {
        Anchor {
            area: Area {
                left,
                top,
                right,
                bottom,
            },
            side: Side::LeftEdge,
        }
    }

    fn assert_apart(tags: &[Area]) {
        for (index, tag) in tags.iter().enumerate() {
            for other in &tags[..index] {
                assert!(!tag.touches(other), "{tag:?} covers {other:?}");
            }
        }
    }

    #[test]
    fn a_tag_stands_on_its_box_or_inside_at_the_upper_edge_of_the_picture() {
        let mut placer = Placer::new(400, 300, 14.0);
        let above = placer.place(&anchor(50, 100, 200, 200), TAG).unwrap();
        assert_eq!((above.left, above.bottom), (50, 100));
        let inside = placer.place(&anchor(250, 5, 380, 200), TAG).unwrap();
        assert_eq!((inside.left, inside.top), (250, 5));
    }

    #[test]
    fn a_tag_below_a_box_without_room_above_and_inside_stays_in_the_picture() {
        let mut placer = Placer::new(400, 300, 14.0);
        placer.place(&anchor(380, 5, 398, 15), TAG).unwrap();
        let tag = placer.place(&anchor(380, 5, 398, 15), TAG).unwrap();
        assert!(tag.right <= 400 && tag.top >= 15);
    }

    #[test]
    fn boxes_at_one_place_get_tags_side_by_side() {
        let mut placer = Placer::new(400, 300, 14.0);
        let same = anchor(50, 100, 350, 250);
        let tags: Vec<Area> = (0..12).map(|_| placer.place(&same, TAG).unwrap()).collect();
        assert_apart(&tags);
        assert!(tags[..4].iter().all(|tag| tag.top == tags[0].top));
    }

    #[test]
    fn tags_never_cover_each_other_and_all_fit_while_there_is_room() {
        let mut placer = Placer::new(1000, 800, 14.0);
        let mut tags = Vec::new();
        for row in 0..10 {
            for column in 0..10 {
                // Boxes overlap their neighbours by half.
                let (left, top) = (column * 90, row * 75 + 5);
                let tag = placer.place(&anchor(left, top, left + 180, top + 150), TAG);
                tags.push(tag.unwrap());
            }
        }
        assert_apart(&tags);
    }

    #[test]
    fn a_tag_without_room_is_left_out() {
        let mut placer = Placer::new(100, 40, 14.0);
        let all = anchor(0, 0, 100, 40);
        let tags: Vec<Area> = (0..50).filter_map(|_| placer.place(&all, TAG)).collect();
        assert!(!tags.is_empty() && tags.len() < 50);
        assert_apart(&tags);
        assert!(placer.place(&all, (101, 20)).is_none());
        assert!(placer.place(&all, (20, 41)).is_none());
    }

    #[test]
    fn the_tag_of_a_line_of_text_spares_the_lines_around_it() {
        let mut placer = Placer::new(400, 300, 14.0);
        let lines: Vec<Anchor> = (0..8)
            .map(|row| Anchor {
                side: Side::Beside,
                ..anchor(20, 20 + row * 30, 200, 44 + row * 30)
            })
            .collect();
        for line in &lines {
            placer.spare(line.area);
        }
        for line in &lines {
            let tag = placer.place(line, TAG).unwrap();
            assert!(lines.iter().all(|it| !it.area.touches(&tag)), "{tag:?}");
        }
    }

    #[test]
    fn a_grid_cell_holds_few_entries_whatever_comes() {
        let mut placer = Placer::new(600, 400, 14.0);
        for index in 0..4000 {
            let at = anchor(index % 500, index % 300, 600, 400);
            placer.spare(at.area);
            let _ = placer.place(&at, TAG);
        }
        // A cell is about three tags high; a tag that is not narrower than high fills the rest.
        let fullest = placer.cells.iter().map(|cell| cell.tags.len()).max();
        assert!(fullest.unwrap() <= 25, "{fullest:?}");
        assert!(
            placer
                .cells
                .iter()
                .all(|cell| cell.lines.len() <= LINES_PER_CELL)
        );
    }
}
