package org.imixs.streams.peer;

import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.commons.codec.digest.MurmurHash3;

/** Ids of rows: hashes of 128 bits as hexadecimal digits, the same on every run. */
final class Ids {
    static final long ODD = 0x9E3779B97F4A7C15L;

    private static final HexFormat HEX = HexFormat.of();

    private Ids() {}

    static String hex(long high, long low) {
        return HEX.toHexDigits(high) + HEX.toHexDigits(low);
    }

    /** An id of a case, and of numbers that tell its rows apart. */
    static String of(String caseId, long... numbers) {
        long[] hash = MurmurHash3.hash128x64(caseId.getBytes(StandardCharsets.UTF_8));
        for (long number : numbers) {
            hash[0] = mix(hash[0] ^ mix(number));
            hash[1] = mix(hash[1] + number * ODD);
        }
        return hex(hash[0], hash[1]);
    }

    /** The last steps of splitmix64 (Steele, Lea, Flood, 2014). */
    static long mix(long bits) {
        bits = (bits ^ (bits >>> 30)) * 0xBF58476D1CE4E5B9L;
        bits = (bits ^ (bits >>> 27)) * 0x94D049BB133111EBL;
        return bits ^ (bits >>> 31);
    }
}
