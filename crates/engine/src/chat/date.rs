//! The date as templates ask for it.
//!
//! In: time since 1970 and a `strftime` format. Out: text. Never: reads a clock.
//! Source: days to dates, Howard Hinnant's `civil_from_days`; the letters, Python's `strftime` in the C locale.

use std::time::Duration;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// How many letters the short names have.
const N_SHORT: usize = 3;

/// Returns `format` filled in with the time `now` after 1970 began; a letter that is not known stays.
pub(super) fn strftime(format: &str, now: Duration) -> String {
    let seconds = now.as_secs();
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month as usize - 1];
    // 1 January 1970 was a Thursday.
    let day_name = DAYS[((days + 4) % 7) as usize];
    let day_of_year = days - days_before_year(year) + 1;
    let hour_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&format!("{year:04}")),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('-') => out.push_str(&unpadded(chars.next(), [day, month, hour, minute, second, hour_12])),
            Some('j') => out.push_str(&format!("{day_of_year:03}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..N_SHORT]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..N_SHORT]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{hour_12:02}")),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Returns a number without its leading nought (`%-d`), as glibc has it.
fn unpadded(letter: Option<char>, parts: [u64; 6]) -> String {
    let idx = letter.and_then(|letter| ['d', 'm', 'H', 'M', 'S', 'I'].iter().position(|l| *l == letter));
    match (idx, letter) {
        (Some(idx), _) => parts[idx].to_string(),
        (None, letter) => ['%', '-'].into_iter().chain(letter).collect(),
    }
}

/// Returns year, month and day of a day after 1 January 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_before_year(year: u64) -> u64 {
    let years = year - 1;
    years * 365 + years / 4 - years / 100 + years / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each expectation is what Python's `datetime.fromtimestamp(…, UTC).strftime` gives.
    #[test]
    fn dates_are_pythons() {
        let check = |seconds: u64, expect: &str| {
            let format = "%Y-%m-%d %H:%M:%S %A %a %B %b %j %I %p %y %% %-d";
            assert_eq!(strftime(format, Duration::from_secs(seconds)), expect);
        };
        check(0, "1970-01-01 00:00:00 Thursday Thu January Jan 001 12 AM 70 % 1");
        check(951_826_555, "2000-02-29 12:15:55 Tuesday Tue February Feb 060 12 PM 00 % 29");
        check(1_735_689_599, "2024-12-31 23:59:59 Tuesday Tue December Dec 366 11 PM 24 % 31");
        check(4_107_542_400, "2100-03-01 00:00:00 Monday Mon March Mar 060 12 AM 00 % 1");
        assert_eq!(strftime("%Q %", Duration::ZERO), "%Q %");
    }
}
