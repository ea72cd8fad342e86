package org.imixs.streams.peer;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/**
 * Folds each case's events in the order of their times.
 *
 * <p>An event waits in {@code waiting} for the watermark; a timer at its time lets all of its case
 * that are due be sorted and folded into {@code cases}, and gives one row of the case. Another timer
 * forgets a case when its retention is over.
 */
final class CaseFold extends KeyedProcessFunction<String, Event, Transition> {
    static final OutputTag<CaseRow> CASES = new OutputTag<>("cases") {};

    private static final long serialVersionUID = 1L;
    private static final long CASE_RETENTION = Duration.ofDays(30).toMillis();
    private static final long IDLE_RETENTION = Duration.ofDays(365).toMillis();

    private final Set<String> endStates;

    private transient ListState<Event> waiting;
    private transient ValueState<Case> cases;
    private transient Counter duplicates;
    private transient Counter late;

    CaseFold(Set<String> endStates) {
        this.endStates = endStates;
    }

    @Override
    public void open(Configuration parameters) {
        waiting = getRuntimeContext().getListState(new ListStateDescriptor<>("waiting", Event.class));
        cases = getRuntimeContext().getState(new ValueStateDescriptor<>("case", Case.class));
        duplicates = getRuntimeContext().getMetricGroup().counter("duplicates");
        late = getRuntimeContext().getMetricGroup().counter("late");
    }

    @Override
    public void processElement(Event event, Context context, Collector<Transition> out)
            throws Exception {
        waiting.add(event);
        context.timerService().registerEventTimeTimer(event.millis());
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext context, Collector<Transition> out)
            throws Exception {
        long watermark = context.timerService().currentWatermark();
        List<Event> due = new ArrayList<>();
        List<Event> later = new ArrayList<>();
        for (Event event : waiting.get()) {
            (event.millis() <= watermark ? due : later).add(event);
        }
        Case known = cases.value();
        if (due.isEmpty()) {
            if (known == null || timestamp < known.forgetAt) {
                return; // an earlier timer has taken them
            }
        } else if (later.isEmpty()) {
            waiting.clear();
        } else {
            waiting.update(later);
        }
        if (known == null) {
            known = new Case();
        }
        if (fold(known, due, context, out)) {
            context.output(CASES, CaseRow.of(context.getCurrentKey(), known, ended(known)));
        }
        long deadline =
                known.lastTime / 1000 + (ended(known) ? CASE_RETENTION : IDLE_RETENTION);
        if (deadline <= watermark && later.isEmpty()) {
            cases.clear();
            return;
        }
        if (known.forgetAt <= watermark || deadline < known.forgetAt) {
            known.forgetAt = deadline;
            context.timerService().registerEventTimeTimer(deadline);
        }
        cases.update(known);
    }

    /** Folds events into their case; says whether there are transitions. */
    private boolean fold(
            Case known, List<Event> due, OnTimerContext context, Collector<Transition> out) {
        due.sort(Event.ORDER);
        boolean moved = false;
        for (Event event : due) {
            if (known.remembers(event.idHigh)) {
                duplicates.inc();
                continue;
            }
            known.remember(event.idHigh);
            if (known.transitions > 0 && event.time < known.lastTime) {
                late.inc();
                continue;
            }
            out.collect(
                    Transition.of(
                            context.getCurrentKey(), event, known, endStates.contains(event.state)));
            known.move(event);
            moved = true;
        }
        return moved;
    }

    private boolean ended(Case known) {
        return endStates.contains(known.state);
    }
}
