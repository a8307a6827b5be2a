//! Declares enums whose values have a text in files, on command lines and in metrics: each value stands once, with its text.

/// An enum with `ALL`, `as_str` and `FromStr`.
macro_rules! text_enum {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident { $($(#[$documentation:meta])* $value:ident = $text:literal,)* }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$documentation])* $value,)*
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$value),*];

            /// Its text.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$value),)*
                    _ => Err(concat!("one of ", $($text, ", "),*).trim_end_matches(", ")),
                }
            }
        }
    };
}

pub(crate) use text_enum;
