package org.imixs.streams.peer;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.std.StdScalarDeserializer;
import com.fasterxml.jackson.databind.ser.std.StdScalarSerializer;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.temporal.ChronoUnit;

/**
 * Times in microseconds since 1970, as texts such as {@code 2026-01-05T10:04:20.469000Z}.
 *
 * <p>Texts of just this form take a short way: {@code java.time} alone takes as long as decoding all
 * the rest of a message.
 */
final class Micros {
    static final double SECOND = 1e6;

    private static final String FORM = "0000-00-00T00:00:00.000000Z";
    private static final long DAY_SECONDS = 86_400;

    private Micros() {}

    static long parse(String text) {
        if (!isPlain(text)) {
            return ChronoUnit.MICROS.between(Instant.EPOCH, OffsetDateTime.parse(text));
        }
        LocalDate day = LocalDate.of(number(text, 0, 4), number(text, 5, 7), number(text, 8, 10));
        long second =
                day.toEpochDay() * DAY_SECONDS
                        + number(text, 11, 13) * 3600
                        + number(text, 14, 16) * 60
                        + number(text, 17, 19);
        return second * 1_000_000 + number(text, 20, 26);
    }

    static String format(long micros) {
        long second = Math.floorDiv(micros, 1_000_000L);
        LocalDate day = LocalDate.ofEpochDay(Math.floorDiv(second, DAY_SECONDS));
        int left = (int) Math.floorMod(second, DAY_SECONDS);
        char[] text = FORM.toCharArray();
        put(text, 4, day.getYear());
        put(text, 7, day.getMonthValue());
        put(text, 10, day.getDayOfMonth());
        put(text, 13, left / 3600);
        put(text, 16, left / 60 % 60);
        put(text, 19, left % 60);
        put(text, 26, (int) Math.floorMod(micros, 1_000_000L));
        return new String(text);
    }

    private static boolean isPlain(String text) {
        if (text.length() != FORM.length()) {
            return false;
        }
        for (int i = 0; i < FORM.length(); i++) {
            char form = FORM.charAt(i);
            char given = text.charAt(i);
            if (form == '0' ? given < '0' || given > '9' : given != form) {
                return false;
            }
        }
        return true;
    }

    private static int number(String text, int start, int end) {
        int found = 0;
        for (int i = start; i < end; i++) {
            found = found * 10 + text.charAt(i) - '0';
        }
        return found;
    }

    private static void put(char[] text, int end, int number) {
        for (int i = end - 1; number > 0; i--, number /= 10) {
            text[i] = (char) ('0' + number % 10);
        }
    }

    /** Reads a time. */
    static final class Reader extends StdScalarDeserializer<Long> {
        private static final long serialVersionUID = 1L;

        Reader() {
            super(Long.class);
        }

        @Override
        public Long deserialize(JsonParser parser, DeserializationContext context)
                throws IOException {
            String text = parser.getText();
            try {
                return parse(text);
            } catch (DateTimeException e) {
                return (Long) context.handleWeirdStringValue(Long.class, text, "no ISO 8601 time");
            }
        }
    }

    /** Writes a time. */
    static final class Writer extends StdScalarSerializer<Long> {
        private static final long serialVersionUID = 1L;

        Writer() {
            super(Long.class);
        }

        @Override
        public void serialize(Long micros, JsonGenerator json, SerializerProvider provider)
                throws IOException {
            json.writeString(format(micros));
        }
    }
}
