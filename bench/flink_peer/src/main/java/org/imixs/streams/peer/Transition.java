package org.imixs.streams.peer;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.PropertyNamingStrategies.SnakeCaseStrategy;
import com.fasterxml.jackson.databind.annotation.JsonNaming;
import com.fasterxml.jackson.databind.annotation.JsonSerialize;

/** A row of {@code transitions}: all columns of ours. */
@JsonNaming(SnakeCaseStrategy.class)
public record Transition(
        String rowId,
        String caseId,
        long sequence,
        String eventId,
        @JsonSerialize(using = Micros.Writer.class) long eventTime,
        String activity,
        String fromState,
        String toState,
        Double durationS,
        double elapsedS,
        String actor,
        String previousActor,
        String workflowGroup,
        String modelVersion,
        boolean isStart,
        boolean isEnd,
        boolean gap) {

    /** The transition by which an event moves a case, which is as it was before. */
    static Transition of(String caseId, Event event, Case before, boolean isEnd) {
        boolean isStart = before.transitions == 0;
        return new Transition(
                Ids.of(caseId, before.transitions, event.time),
                caseId,
                before.transitions,
                Ids.hex(event.idHigh, event.idLow),
                event.time,
                event.activity,
                before.state,
                event.state,
                isStart ? null : (event.time - before.lastTime) / Micros.SECOND,
                isStart ? 0 : (event.time - before.firstTime) / Micros.SECOND,
                event.actor,
                before.actor,
                event.workflowGroup,
                event.modelVersion,
                isStart,
                isEnd,
                before.isGap(event));
    }

    /** No model is read. */
    @JsonProperty("verdict")
    public String verdict() {
        return "unknown";
    }

    /** These events have no numbers of tasks and events, and no items. */
    @JsonProperty("task")
    public Integer task() {
        return null;
    }

    @JsonProperty("event")
    public Integer event() {
        return null;
    }

    @JsonProperty("source_task")
    public Integer sourceTask() {
        return null;
    }

    @JsonProperty("attributes")
    public Object attributes() {
        return null;
    }
}
