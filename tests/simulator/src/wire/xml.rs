//! A writer for the XML answers of the query protocol.

use std::fmt::Display;

use quick_xml::escape::escape;

/// XML text under construction. Element names are constants of the protocol; values are escaped.
#[derive(Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// `<tag>value</tag>`
    pub(crate) fn text(&mut self, tag: &str, value: impl Display) -> &mut Self {
        self.element(tag, |xml| xml.0.push_str(&escape(value.to_string())))
    }

    /// `<tag>value</tag>` if there is a value.
    pub(crate) fn optional(&mut self, tag: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.text(tag, value),
            None => self,
        }
    }

    /// `<tag>…</tag>`
    pub(crate) fn element(&mut self, tag: &str, inner: impl FnOnce(&mut Xml)) -> &mut Self {
        self.0.push_str(&format!("<{tag}>"));
        inner(self);
        self.0.push_str(&format!("</{tag}>"));
        self
    }

    /// `<tag><item>…</item>…</tag>`, as EC2 writes lists.
    pub(crate) fn items<T>(
        &mut self,
        tag: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Xml, T),
    ) -> &mut Self {
        self.element(tag, |xml| {
            for item in items {
                xml.element("item", |xml| each(xml, item));
            }
        })
    }

    /// The whole document with the root element and its namespace.
    pub(crate) fn document(root: &str, namespace: &str, inner: impl FnOnce(&mut Xml)) -> String {
        let mut xml = Xml("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
        let attribute = match namespace {
            "" => String::new(),
            namespace => format!(" xmlns=\"{}\"", escape(namespace)),
        };
        xml.0.push_str(&format!("<{root}{attribute}>"));
        inner(&mut xml);
        xml.0.push_str(&format!("</{root}>"));
        xml.0
    }
}
