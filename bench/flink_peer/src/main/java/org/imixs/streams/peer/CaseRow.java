package org.imixs.streams.peer;

import com.fasterxml.jackson.databind.PropertyNamingStrategies.SnakeCaseStrategy;
import com.fasterxml.jackson.databind.annotation.JsonNaming;
import com.fasterxml.jackson.databind.annotation.JsonSerialize;

/** A row of {@code cases}: all columns of ours. */
@JsonNaming(SnakeCaseStrategy.class)
public record CaseRow(
        String rowId,
        String caseId,
        String workflowGroup,
        String modelVersion,
        @JsonSerialize(using = Micros.Writer.class) long firstEventTime,
        @JsonSerialize(using = Micros.Writer.class) long lastEventTime,
        long transitions,
        String state,
        boolean isComplete,
        Double cycleTimeS,
        long rework,
        long gaps,
        String variantId,
        @JsonSerialize(using = Micros.Writer.class) long updatedAt) {

    /** A case as it stands. */
    static CaseRow of(String caseId, Case known, boolean isComplete) {
        return new CaseRow(
                Ids.of(caseId),
                caseId,
                known.workflowGroup,
                known.modelVersion,
                known.firstTime,
                known.lastTime,
                known.transitions,
                known.state,
                isComplete,
                isComplete ? (known.lastTime - known.firstTime) / Micros.SECOND : null,
                known.rework,
                known.gaps,
                Ids.hex(known.variantHigh, known.variantLow),
                known.lastTime);
    }
}
