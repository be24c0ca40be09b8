//! What is wrong with a text: the place, what was found, what was expected, what to do.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the source.
    pub span: Range<usize>,
    /// What was found there.
    pub found: String,
    /// What would have been right.
    pub expected: String,
    /// What to do.
    pub remedy: String,
    /// Other places that matter, such as the first definition of a name that is defined twice.
    pub labels: Vec<Label>,
}

/// A place with a remark.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Label {
    /// Bytes of the source.
    pub span: Range<usize>,
    /// The remark.
    pub text: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Diagnostic {
            file,
            line,
            column,
            found,
            expected,
            remedy,
            ..
        } = self;
        write!(
            f,
            "{file}:{line}:{column}: found {found}; expected {expected}. {remedy}"
        )
    }
}

/// The diagnostics as a person reads them, each with its line of the source and a caret; coloured if asked.
/// `source` is the text that they came from.
pub fn render(diagnostics: &[Diagnostic], source: &str, colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let lines = Lines::new(source);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[report(diagnostic, source, &lines)]));
        text.push_str("\n\n");
    }
    let count = diagnostics.len();
    text.push_str(&format!("{count} error{}\n", if count == 1 { "" } else { "s" }));
    text
}

/// Each place is shown with the lines it lies on only, so that the cost does not grow with the source.
fn report<'a>(diagnostic: &'a Diagnostic, source: &'a str, lines: &Lines) -> annotate_snippets::Group<'a> {
    let snippet = |span: &Range<usize>| {
        let window = lines.window(source, span);
        let inside = span.start.min(window.end) - window.start
            ..span.end.clamp(window.start, window.end) - window.start;
        let line = lines.position(source, window.start).0;
        (
            Snippet::source(&source[window])
                .line_start(line)
                .path(&diagnostic.file),
            inside,
        )
    };
    let (primary, span) = snippet(&diagnostic.span);
    let label = format!("expected {}", diagnostic.expected);
    let mut group = Level::ERROR
        .primary_title(format!("found {}", diagnostic.found))
        .element(primary.annotation(AnnotationKind::Primary.span(span).label(label)));
    for other in &diagnostic.labels {
        let (place, span) = snippet(&other.span);
        group = group.element(place.annotation(AnnotationKind::Context.span(span).label(&other.text)));
    }
    group.element(Level::HELP.message(&diagnostic.remedy))
}

/// The diagnostics of one source while it is read.
pub(crate) struct Reports<'s> {
    source: &'s str,
    file: String,
    lines: Lines,
    list: Vec<Diagnostic>,
}

impl<'s> Reports<'s> {
    pub fn new(source: &'s str, file: &str) -> Reports<'s> {
        Reports {
            source,
            file: file.to_string(),
            lines: Lines::new(source),
            list: vec![],
        }
    }

    /// The number of lines of the source.
    pub fn line_count(&self) -> usize {
        self.lines.starts.len()
    }

    /// The line of an offset, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.lines.position(self.source, offset).0
    }

    /// Whether so much is wrong that reading on serves nobody.
    pub fn is_full(&self) -> bool {
        self.list.len() >= super::MAX_DIAGNOSTICS
    }

    pub fn add(
        &mut self,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add_with(span, found, expected, remedy, vec![]);
    }

    pub fn add_with(
        &mut self,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
        labels: Vec<Label>,
    ) {
        if self.is_full() {
            return;
        }
        let (found, expected, remedy, labels) = if self.list.len() + 1 == super::MAX_DIAGNOSTICS {
            let most = format!("fewer than {}", super::MAX_DIAGNOSTICS);
            (
                "more errors than are listed".to_string(),
                most,
                "Correct the first ones and try again.".into(),
                vec![],
            )
        } else {
            (found.into(), expected.into(), remedy.into(), labels)
        };
        let (line, column) = self.lines.position(self.source, span.start);
        let file = self.file.clone();
        self.list.push(Diagnostic {
            file,
            line,
            column,
            span,
            found,
            expected,
            remedy,
            labels,
        });
    }

    /// All of them, in the order of their places.
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut list = self.list;
        list.sort_by_key(|d| d.span.start);
        list
    }
}

/// Where the lines of a source begin.
pub(super) struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub fn new(source: &str) -> Lines {
        let breaks = source
            .bytes()
            .enumerate()
            .filter(|b| b.1 == b'\n')
            .map(|b| b.0 + 1);
        Lines {
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    /// Line and column, in characters, from 1.
    pub fn position(&self, source: &str, offset: usize) -> (usize, usize) {
        let offset = floor(source, offset);
        let line = self.starts.partition_point(|&start| start <= offset);
        (line, source[self.starts[line - 1]..offset].chars().count() + 1)
    }

    /// The line that a span begins on, up to a length that a terminal can show.
    fn window(&self, source: &str, span: &Range<usize>) -> Range<usize> {
        const WIDEST: usize = 400;
        let line = self.starts.partition_point(|&start| start <= span.start).max(1);
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(source.len(), |&next| next - 1);
        let end = start + source[start..end].trim_end_matches('\r').len();
        start..floor(source, end.min(start.max(span.start) + WIDEST))
    }
}

/// The start of the character at an offset.
fn floor(source: &str, offset: usize) -> usize {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
