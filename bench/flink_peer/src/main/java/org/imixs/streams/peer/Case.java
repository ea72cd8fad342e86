package org.imixs.streams.peer;

import java.util.Arrays;

/** What is known of a case: a POJO of primitives, texts and their arrays, for Flink's serializer. */
public class Case {
    public String workflowGroup;
    public String modelVersion;
    public String state;
    public String actor;

    /** In microseconds since 1970, as is {@link #lastTime}. */
    public long firstTime;

    public long lastTime;
    public long transitions;
    public long gaps;

    /** How many states were entered more than once. */
    public long rework;

    /** With {@link #variantLow} the hash of the states so far. */
    public long variantHigh;

    public long variantLow;

    /** The states so far, each once, and how often each was entered. */
    public String[] states = {};

    public int[] visits = {};

    /** Ids of the events so far, {@link #knownCount} of them. */
    public long[] known = {};

    public int knownCount;

    /** When a timer looks whether the case may be forgotten, in milliseconds. */
    public long forgetAt = Long.MIN_VALUE;

    boolean remembers(long id) {
        for (int i = 0; i < knownCount; i++) {
            if (known[i] == id) {
                return true;
            }
        }
        return false;
    }

    void remember(long id) {
        if (knownCount == known.length) {
            known = Arrays.copyOf(known, Math.max(4, knownCount + knownCount / 2));
        }
        known[knownCount++] = id;
    }

    /** Whether an event says that it came from another state than the case is in. */
    boolean isGap(Event event) {
        return transitions > 0 && event.sourceState != null && !event.sourceState.equals(state);
    }

    void move(Event event) {
        gaps += isGap(event) ? 1 : 0;
        firstTime = transitions == 0 ? event.time : firstTime;
        lastTime = event.time;
        transitions++;
        state = event.state;
        actor = event.actor;
        workflowGroup = event.workflowGroup;
        modelVersion = event.modelVersion;
        visit(event.state);
        long entered = event.state.hashCode();
        variantHigh = Ids.mix(variantHigh ^ entered);
        variantLow = Ids.mix(variantLow + entered * Ids.ODD);
    }

    private void visit(String entered) {
        for (int i = 0; i < states.length; i++) {
            if (states[i].equals(entered)) {
                rework += ++visits[i] == 2 ? 1 : 0;
                return;
            }
        }
        states = Arrays.copyOf(states, states.length + 1);
        visits = Arrays.copyOf(visits, visits.length + 1);
        states[states.length - 1] = entered;
        visits[visits.length - 1] = 1;
    }
}
