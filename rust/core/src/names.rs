//! The names that values of an enumeration have in a Document, each listed once.

/// An enumeration whose values have names in a Document.
pub trait Named: Copy + PartialEq + 'static {
    /// Every value with its name.
    const NAMES: &'static [(&'static str, Self)];

    /// Its name.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).expect("every value has a name").0
    }

    /// The value of that name.
    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// All names, in quotes, for errors.
    fn known() -> String {
        Self::NAMES.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }
}

/// Defines an enumeration of values without contents, each with its name in a Document.
macro_rules! named {
    ($(#[$doc:meta])* $vis:vis enum $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $enum { $($(#[$variant_doc])* $variant,)* }

        impl $crate::names::Named for $enum {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, $enum::$variant),)*];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    named! {
        /// Some.
        enum Some2 {
            One = "one",
            TwoParts = "two_parts",
        }
    }

    #[test]
    fn a_name_is_that_of_its_value() {
        for &(name, value) in Some2::NAMES {
            assert_eq!(value.name(), name);
            assert_eq!(Some2::named(name), Some(value));
        }
        assert_eq!(Some2::named("One"), None);
        assert_eq!(Some2::known(), "\"one\", \"two_parts\"");
    }
}
