package org.imixs.streams.peer;

import com.fasterxml.jackson.annotation.JsonIgnore;
import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.annotation.JsonDeserialize;
import java.util.Comparator;

/** What happened to a case: a POJO, for Flink's own serializer. */
@JsonIgnoreProperties(ignoreUnknown = true)
public class Event {
    static final long MISSING = Long.MIN_VALUE;

    /** The order of a case's events; what is equal is one event. */
    static final Comparator<Event> ORDER =
            Comparator.<Event>comparingLong(event -> event.time)
                    .thenComparingLong(event -> event.idHigh)
                    .thenComparingLong(event -> event.idLow);

    @JsonProperty("case_id")
    public String caseId;

    /** In microseconds since 1970. */
    @JsonProperty("event_time")
    @JsonDeserialize(using = Micros.Reader.class)
    public long time = MISSING;

    @JsonProperty("activity")
    public String activity;

    @JsonProperty("state")
    public String state;

    @JsonProperty("source_state")
    public String sourceState;

    @JsonProperty("actor")
    public String actor;

    @JsonProperty("workflow_group")
    public String workflowGroup;

    @JsonProperty("model_version")
    public String modelVersion;

    /** With {@link #idLow} the hash of the message: a message that comes again is no news. */
    @JsonIgnore public long idHigh;

    @JsonIgnore public long idLow;

    /** Whether it has what an event must have. */
    boolean isWhole() {
        return caseId != null && activity != null && time != MISSING;
    }

    /** Its time on Flink's clock. */
    long millis() {
        return Math.floorDiv(time, 1000L);
    }
}
