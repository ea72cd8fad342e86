package org.imixs.streams.peer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import org.apache.commons.codec.digest.MurmurHash3;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.metrics.Counter;

/** Decodes messages; what is no event is counted and left out. */
final class EventDecoder extends AbstractDeserializationSchema<Event> {
    private static final long serialVersionUID = 1L;

    private transient ObjectReader reader;
    private transient Counter undecodable;

    @Override
    public void open(InitializationContext context) {
        reader = new ObjectMapper().readerFor(Event.class);
        undecodable = context.getMetricGroup().counter("undecodable");
    }

    @Override
    public Event deserialize(byte[] message) throws IOException {
        Event event;
        try {
            event = message == null ? null : reader.readValue(message);
        } catch (JsonProcessingException e) {
            event = null;
        }
        if (event == null || !event.isWhole()) {
            undecodable.inc();
            return null;
        }
        if (event.state == null) {
            event.state = event.activity;
        }
        long[] hash = MurmurHash3.hash128x64(message);
        event.idHigh = hash[0];
        event.idLow = hash[1];
        return event;
    }
}
